# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Do what README.md and docs/tutorial.md say, to the letter: every bash block runs, in a folder of a reader's own.

Usage: read_along.py [--show] [PAGE ...]; --show prints what would run. `make pages` calls it. The hosts are the
lab's, so the GPUs are a fake: it proves that the words are right, and not CUDA.

A block of YAML or of an ini file whose first line is "# some/path.yml" becomes that file. A bash block that ends with
"# is refused" has to fail. What cannot run here stands in INSTEAD, with the reason.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path

import cores

ROOT = cores.ROOT
PAGES = ("README.md", "docs/tutorial.md")
BLOCK = re.compile(r"^(?P<indent> *)```(?P<language>\w+)\n(?P<text>.*?)^(?P=indent)```$", re.DOTALL | re.MULTILINE)
FILE = re.compile(r"# (\S+\.(?:yml|cfg))\n")
REFUSED = "# is refused"
ARCHIVE = "{archive}"  # of the collection, as `make build` makes it
# A line as it stands on a page: what runs instead, and why.
INSTEAD = {
    "make test   # all tests": ("make --dry-run test >/dev/null", "this is a part of `make test`"),
    "ansible-galaxy collection install gpufleet.llamacpp": (
        f"ansible-galaxy collection install {ARCHIVE}",
        "what is in this checkout is read along, and not what Galaxy has",
    ),
    "ansible-playbook -i hosts.yml gpufleet.llamacpp.deploy --check --diff": (
        f"ansible-playbook -i hosts.yml -i {ROOT}/inventory/lab gpufleet.llamacpp.deploy --check --diff",
        "gpu1 is a host of the lab",
    ),
    "ansible-playbook -i hosts.yml gpufleet.llamacpp.deploy": (
        f"ansible-playbook -i hosts.yml -i {ROOT}/inventory/lab gpufleet.llamacpp.deploy",
        "gpu1 is a host of the lab",
    ),
    "git clone https://github.com/gpufleet/llamacpp": (f"ln -s {ROOT} llamacpp", "the checkout is here"),
}


def instead(text: str, archive: str, used: set[str]) -> str:
    """The block with what runs instead of its lines."""
    lines = text.splitlines()
    used.update(set(lines) & INSTEAD.keys())
    return "\n".join(INSTEAD[line][0].replace(ARCHIVE, archive) if line in INSTEAD else line for line in lines)


def script(page: Path, archive: str, used: set[str]) -> str:
    """What a reader of the page does, as one script of bash, so that cd, export and activate hold to its end."""
    parts = ["set -euo pipefail"]
    for match in BLOCK.finditer(page.read_text(encoding="utf-8")):
        text = textwrap.dedent(match["text"])
        named = FILE.match(text)
        if match["language"] == "bash":
            parts.append(f"printf '%s\\n' {_quoted('', *text.splitlines())}")
            commands = instead(text, archive, used)
            if text.rstrip().endswith(REFUSED):
                commands = f"if (\n{commands}\n); then echo 'read_along: that was not refused'; exit 1; fi"
            parts.append(commands)
        elif named:
            parts.append(f"mkdir -p {os.path.dirname(named[1]) or '.'}")
            parts.append(f"cat > {named[1]} <<'END_OF_FILE'\n{text}END_OF_FILE")
    return "\n".join(parts) + "\n"


def _quoted(*lines: str) -> str:
    return " ".join("'" + f"$ {line}".replace("'", "'\\''") + "'" for line in lines if line)


def reader(home: str) -> dict[str, str]:
    """The environment of somebody who has just sat down: a home of their own, Ansible, and nothing set up."""
    ours = ("ANSIBLE_CONFIG", "ANSIBLE_COLLECTIONS_PATH", "ANSIBLE_INVENTORY", "VIRTUAL_ENV")
    kept = {name: value for name, value in os.environ.items() if name not in ours}
    # The python3 of .venv, and the versions that are checked here, whatever came out since.
    tools = Path(home, "bin")
    tools.mkdir()
    (tools / "python3").symlink_to((ROOT / ".venv/bin/python").resolve())
    pins = Path(home, "constraints.txt")
    core = next(line for line in (ROOT / "requirements/lab.txt").read_text().splitlines() if "ansible-core==" in line)
    pins.write_text((ROOT / "requirements/constraints.txt").read_text() + core + "\n")
    config = os.path.expanduser("~/.config")
    return {
        **kept,
        **{"HOME": home, "XDG_CONFIG_HOME": os.environ.get("XDG_CONFIG_HOME", config), "PIP_CONSTRAINT": str(pins)},
        **{"PATH": f"{tools}:{ROOT / '.venv/bin'}:{os.environ['PATH']}", "ANSIBLE_FORCE_COLOR": "0"},
        "LAB": os.environ.get("LAB", "tutorial"),
    }


def follow(page: Path, text: str) -> bool:
    """Run the script of one page in an empty folder; what it prints is printed."""
    begin = time.monotonic()
    print(f"\n== {page.relative_to(ROOT)}", flush=True)
    with tempfile.TemporaryDirectory(prefix="reader") as home:
        environment = reader(home)
        # The README is read in the checkout, and its commands are those of the checkout until it leaves it.
        folder = ROOT if page.name == "README.md" else Path(home)
        code = subprocess.run(["bash", "-c", text], cwd=folder, env=environment, check=False).returncode
    told = "as it says" if code == 0 else f"failed with exit status {code}: its last lines above tell where"
    print(f"== {page.relative_to(ROOT)}: {told}, {time.monotonic() - begin:.0f} s", flush=True)
    return code == 0


def main(arguments: Sequence[str]) -> int:
    """Follow the pages one after the other, on one lab, which is taken down at the end."""
    names = [name for name in arguments if name != "--show"] or PAGES
    archive = next(iter(sorted(cores.BUILD.glob("gpufleet-llamacpp-*.tar.gz"))), None)
    if archive is None:
        sys.exit("There is no archive of the collection in .build: run `make build` first.")
    used: set[str] = set()
    scripts = {ROOT / name: script(ROOT / name, str(archive), used) for name in names}
    stale = INSTEAD.keys() - used
    if not arguments and stale:
        sys.exit(f"No page has these lines any more, so they have to go out of INSTEAD: {sorted(stale)}")
    if "--show" in arguments:
        print("\n".join(scripts.values()))
        return 0
    try:
        return 0 if all(follow(page, text) for page, text in scripts.items()) else 1
    finally:
        down = {**os.environ, "LAB": os.environ.get("LAB", "tutorial")}
        subprocess.run([ROOT / "tests/lab/lab", "down"], env=down, check=False)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
