# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The demonstration: two fresh hosts, deploy-4403.yml, and a question to the model through the port of each.

`make demo` calls it in the checkout's environment. A second run uses the hosts that are there.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import requests

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
LAB = ROOT / "tests" / "lab" / "lab"
PLAYBOOK = "playbooks/deploy-4403.yml"
INVENTORY = "inventory/lab"
HOSTS = 2
PORT = 4403
QUESTION = "What is the capital of France? Answer in one sentence."
COLUMNS = ("HOST", "INSTANCE", "STATE", "UP", "MODEL", "QUANT", "CTX", "GPUS", "TOK/S")
# As the command `ansible` begins the result of a host.
RESULT = re.compile(r"^(\S+) \| [A-Z!]+ => (?=\{)", re.MULTILINE)


def step(text: str) -> None:
    print(f"\n== {text}", flush=True)


def run(*argv: str | Path) -> None:
    """Run a command in the checkout; what it prints is the demonstration's. Ends the demonstration if it fails."""
    code = subprocess.run([str(word) for word in argv], cwd=ROOT, check=False).returncode
    if code:
        sys.exit(f"demo: `{' '.join(map(str, argv))}` failed with exit status {code}; its last lines above tell why.")


def output(*argv: str | Path, environment: dict[str, str] | None = None) -> str:
    """What a command prints."""
    words = [str(word) for word in argv]
    return subprocess.run(words, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout


def instances() -> dict[str, list[dict]]:
    """The instances of every host, as llamacpp_instance_info tells them."""
    module = "gpufleet.llamacpp.llamacpp_instance_info"
    environment = {**os.environ, "ANSIBLE_CALLBACK_RESULT_FORMAT": "json"}
    said = output(BIN / "ansible", "all", "-i", INVENTORY, "-m", module, environment=environment)
    decode = json.JSONDecoder().raw_decode
    found = {match[1]: decode(said, match.end())[0]["instances"] for match in RESULT.finditer(said)}
    return dict(sorted(found.items()))


def short(seconds: int | None) -> str:
    """A time that fits a column: 42s, 17m, 5h, 3d."""
    if seconds is None:
        return "-"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def ranges(numbers: list[int]) -> str:
    """Sorted numbers as a person writes them: 0-3, or 0,2-3."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ",".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)


def row(host: str, one: dict) -> tuple[str, ...]:
    """One instance as a row of the table."""
    model, release = one.get("model") or {}, one.get("release") or {}
    rate = (release.get("completion") or {}).get("tokens_per_second")
    return (
        host,
        one["name"],
        one["state"],
        short(one.get("uptime")),
        (model.get("name") or "-")[:12],
        model.get("quantization") or "-",
        str(one.get("context_size") or "-"),
        ranges([gpu["index"] for gpu in one.get("gpu_memory", [])]) or "-",
        f"{rate:.0f}" if rate else "-",
    )


def table(rows: list[tuple[str, ...]]) -> str:
    """Rows as aligned columns."""
    lines = [COLUMNS, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(COLUMNS))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines)


def ask(address: str) -> str:
    """The model's answer through the port of one host."""
    body = {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 40, "temperature": 0}
    session = requests.Session()
    session.trust_env = False  # the lab's addresses are not for a proxy
    answer = session.post(f"http://{address}:{PORT}/v1/chat/completions", json=body, timeout=60)
    answer.raise_for_status()
    return answer.json()["choices"][0]["message"]["content"].strip()


def main() -> None:
    begin = time.monotonic()
    step(f"{HOSTS} hosts (tests/lab/lab up {HOSTS})")
    run(LAB, "up", str(HOSTS))
    step(f"ansible-playbook -i {INVENTORY} {PLAYBOOK}")
    run(BIN / "ansible-playbook", "-i", INVENTORY, PLAYBOOK)
    step("What runs now")
    print(table([row(host, one) for host, found in instances().items() for one in found]))
    print("The model is a small one and computes on the CPU; the GPUs are a fake for the tests of the management.")
    addresses = json.loads(output(LAB, "addresses"))
    step(f'"{QUESTION}"')
    for host, address in addresses.items():
        print(f"{host}: {ask(address)}")
    name, address = next(iter(addresses.items()))
    step("Look around")
    print(f"""\
  curl http://{address}:{PORT}/health
  curl http://{address}:{PORT}/v1/models
  tests/lab/lab ssh {name}                         # as operator, without root
  tests/lab/lab ssh {name} llamacpp/4403-glm-4.7-flash-q4/run.sh status
  .venv/bin/ansible-playbook -i {INVENTORY} {PLAYBOOK} --check --diff
  make down                                    # take the hosts away

Done in {time.monotonic() - begin:.0f} s.""")


if __name__ == "__main__":
    main()
