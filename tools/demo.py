# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The demonstration: deploy a model on two fresh hosts, show the status, and ask the model a question.

`make demo` runs it in the environment of the checkout. A second run uses the existing hosts.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import requests

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
LAB = ROOT / "tests" / "lab" / "lab"
DEPLOY = "playbooks/deploy-4403.yml"
STATUS = "playbooks/status.yml"
INVENTORY = "inventory/lab"
HOSTS = 2
PORT = 4403
QUESTION = "What is the capital of France? Answer in one sentence."


def step(text: str) -> None:
    print(f"\n== {text}", flush=True)


def run(*argv: str | Path) -> None:
    """Run a command in the checkout and show its output. Ends the demonstration if it fails."""
    code = subprocess.run([str(word) for word in argv], cwd=ROOT, check=False).returncode
    if code:
        sys.exit(f"demo: `{' '.join(map(str, argv))}` failed with exit status {code}; see its last lines above.")


def ask(address: str) -> str:
    """The answer of the model on one host."""
    body = {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 40, "temperature": 0}
    session = requests.Session()
    session.trust_env = False  # no proxy for the lab's addresses
    answer = session.post(f"http://{address}:{PORT}/v1/chat/completions", json=body, timeout=60)
    answer.raise_for_status()
    return answer.json()["choices"][0]["message"]["content"].strip()


def main() -> None:
    begin = time.monotonic()
    step(f"{HOSTS} hosts (tests/lab/lab up {HOSTS})")
    run(LAB, "up", str(HOSTS))
    step(f"ansible-playbook -i {INVENTORY} {DEPLOY}")
    run(BIN / "ansible-playbook", "-i", INVENTORY, DEPLOY)
    step(f"ansible-playbook -i {INVENTORY} {STATUS}")
    run(BIN / "ansible-playbook", "-i", INVENTORY, STATUS)
    print("The model is small and computes on the CPU; the GPUs are faked.")
    addresses = json.loads(subprocess.run([LAB, "addresses"], check=True, stdout=subprocess.PIPE).stdout)
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
  .venv/bin/ansible-playbook -i {INVENTORY} {DEPLOY} --check --diff
  make down                                    # remove the hosts

Done in {time.monotonic() - begin:.0f} s.""")


if __name__ == "__main__":
    main()
