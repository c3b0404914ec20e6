# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The preview of the four services with their real models on 4 x 143 GB: they fit, and a larger context is refused.

The GPUs are fakes of that size. The models have the real headers and sizes, and holes instead of content, so no server
can start with them. The plan has a home of its own, so it is that of an empty host.
"""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
HOME, GIANTS = "/home/operator/planned", "/data/giants"
CODE = "/tmp/giants"
GPU = "gpu {0} GPU-{0}f5a1c00-fa4e-4e56-8d4c-00000000000{0} 00000000:{1}:00.0 143771 625 0 0 0 1 0 0 NVIDIA H200 NVL"


@pytest.fixture(scope="module")
def instances(instance, lab):
    """The instances of the four playbooks, with files of the real sizes, and with free ports."""
    image = instance.record()["spec"]["image"]
    archive = ["tar", "-chf", "-", "--exclude=__pycache__"]
    archive += ["-C", ROOT / "tests/unit/_gguf", "gguf_builder.py", "-C", Path(__file__).parent, "giants.py"]
    archive += ["-C", ROOT / ".collections", "ansible_collections/gpufleet/llamacpp/plugins/module_utils"]
    code = subprocess.run(archive, check=True, capture_output=True).stdout
    lab("ssh", "gpu1", f"mkdir -p {CODE} && tar -C {CODE} -xf -", input=code)
    lab("ssh", "gpu1", f"PYTHONPATH={CODE} python3 {CODE}/giants.py {GIANTS}")
    lab("ssh", "gpu1", f"mkdir -p {HOME} && ln -sfn /home/operator/llamacpp/venv {HOME}/venv")
    found = {}
    for page in sorted(ROOT.glob("playbooks/deploy-[0-9]*.yml")):
        (declared,) = yaml.safe_load(page.read_text())[0]["vars"]["llamacpp_instances"]
        model = f"{GIANTS}/{declared['model']['path']}"
        found[declared["port"]] = {**declared, "model": model, "image": image, "port": declared["port"] + 1000}
    yield found
    lab("ssh", "gpu1", f"rm -rf {CODE} {HOME} {GIANTS}")


@pytest.fixture
def predict(instances, run_playbook, lab, tmp_path):
    """Preview deploy.yml with some of them on a host with free GPUs."""

    def run(*ports, **settings):
        cards = [GPU.format(number, bus) for number, bus in enumerate(("17", "3D", "9C", "C2"))]
        (tmp_path / "gpus").write_text("\n".join(["auto off", *cards, ""]))
        lab("gpu", "gpu1", "set", str(tmp_path / "gpus"))
        try:
            wanted = [{**instances[port], **settings.get(f"of_{port}", {})} for port in ports]
            return run_playbook(
                "deploy", "--check", llamacpp_home=HOME, llamacpp_instances=wanted, llamacpp_instance_overrides={}
            )
        finally:
            lab("gpu", "gpu1", "unset")

    return run


def table(output):
    """The rows of the table, with the GiB of each GPU."""
    lines = output[output.index("gpu1: GiB on GPU") :].splitlines()
    found = {}
    for line in lines[1:]:
        match = re.match(r"  (\S.*?)((?: +-?\d+\.\d){4})$", line)
        if not match:
            break
        found[match[1]] = [float(word) for word in match[2].split()]
    return found


def test_all_four_fit_side_by_side(predict):
    """Weights and cache as docs/howto/several-instances-on-a-gpu.md has them, and 15 % more for an estimate."""
    preview = predict(4401, 4402, 4403, 5001)

    assert preview.code == 0, preview.output
    rows = table(preview.output)
    for name, least, most in (
        ("4401-glm-4.7-q2", 36, 48),
        ("4402-glm-4.7-flash-q4", 5, 8),
        ("4403-glm-4.7-flash-q4", 5, 8),
        ("5001-deepseek-v2.5-gguf", 53, 68),
    ):
        assert all(least <= need <= most for need in rows[name]), (name, rows)
    assert rows["free now"] == [pytest.approx(139.8, abs=0.1)] * 4
    for column in range(4):
        needs = sum(row[column] for name, row in rows.items() if "-" in name)
        assert rows["left"][column] == pytest.approx(139.8 - needs, abs=0.3)
        assert rows["left"][column] > 10


def test_the_old_deepseek_file_with_a_long_context_does_not_fit_with_the_others(predict):
    """It has no MLA keys, so 65,536 tokens take 300 GiB. The message names the other instances that count."""
    refused = predict(4401, 4402, 4403, 5001, of_5001={"context_size": 65536})

    assert refused.code != 0
    message = re.sub(r"\s+", " ", refused.output)
    assert "5001-deepseek-v2.5-gguf: memory: it does not fit on GPU 0" in message
    counted = "what the declared instances 4401-glm-4.7-q2, 4402-glm-4.7-flash-q4, 4403-glm-4.7-flash-q4 need"
    assert counted in message
