# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module gpu_info: which readings are a result and which a failure. No GPU and no library is needed here."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._host import python
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._host.gpu import errors as nvml_errors
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._host.gpu import read as gpu
from ansible_collections.gpufleet.llamacpp.plugins.modules import gpu_info

HERE = gpu.Gpu(index=0, uuid="GPU-1", processes=(gpu.GpuProcess(pid=1, memory=2, user="me", command="it"),))
READING = gpu.NvmlReading(
    gpus=(HERE,), links=(gpu.Link((0, 1), True, True, "system"),), driver_version="1.2", cuda_version="13.1"
)


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], reading: Any) -> dict[str, Any]:
    def read() -> gpu.NvmlReading:
        if isinstance(reading, Exception):
            raise reading
        return reading

    monkeypatch.setattr(gpu, "read", read)
    monkeypatch.setattr(nvml_errors, "pci_gpus", lambda: 0)
    with patch_module_args({"home": "/nonexistent"}), pytest.raises(SystemExit):
        gpu_info.main()
    return json.loads(capsys.readouterr().out)


def test_gpus(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(monkeypatch, capsys, READING)
    assert (result["changed"], result["reason"], result["driver_version"]) == (False, None, "1.2")
    assert result["gpus"][0]["processes"] == [{"pid": 1, "memory": 2, "user": "me", "command": "it"}]
    assert result["links"] == [{"gpus": [0, 1], "nvlink": True, "p2p": True, "path": "system"}]


def test_everything_that_is_returned_is_documented(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run(monkeypatch, capsys, READING)
    documented = yaml.safe_load(gpu_info.RETURN)
    assert set(result) - {"changed", "invocation"} == set(documented)
    gpus = documented["gpus"]["contains"]
    assert list(result["gpus"][0]) == list(gpus)
    assert list(result["gpus"][0]["processes"][0]) == list(gpus["processes"]["contains"])
    assert list(result["links"][0]) == list(documented["links"]["contains"])


@pytest.mark.parametrize("code", [9, 12])
def test_a_host_without_gpus(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], code: int) -> None:
    result = run(monkeypatch, capsys, gpu.NvmlUnavailable("This host has none", code))
    assert (result["gpus"], result["links"], result["reason"]) == ([], [], "This host has none.")
    assert "failed" not in result


def test_a_driver_without_a_gpu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(monkeypatch, capsys, gpu.NvmlReading((), (), "590.48.01", "13.1"))
    assert result["reason"] == "NVIDIA's driver 590.48.01 is loaded on this host but finds no GPU."


@pytest.mark.parametrize("code", [18, 999, None])
def test_a_driver_that_does_not_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], code: int | None
) -> None:
    result = run(monkeypatch, capsys, gpu.NvmlUnavailable("Reboot the host", code))
    assert (result["failed"], result["msg"]) == (True, "Reboot the host.")


def test_the_python_library_is_missing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(python, "has_library", lambda distribution: False)
    result = run(monkeypatch, capsys, gpu.PynvmlMissing("not here"))
    assert result["failed"]
    assert "nvidia-ml-py" in result["msg"]
    assert "/nonexistent/venv" in result["msg"]
