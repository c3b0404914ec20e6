# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Disposable hosts that behave like the operator's: boot them, break them, throw them away.

The hosts are called gpu1, gpu2, ... The lab's name is $LAB, by default one derived from the checkout's path; labs of
different names run side by side. What a lab needs while it runs lies in .lab/run/<name>, what it is built from in
.lab/cache.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import fleet
from machine import Host
from state import Lab, LabError, say

# Commands that the lab calls, and the Debian package of each.
TOOLS = {
    "mmdebstrap": "mmdebstrap",
    "systemd-nspawn": "systemd-container",
    "ip": "iproute2",
    "ssh": "openssh-client",
    "gcc": "gcc",
}
EXTRA_PACKAGES = {"gcc": ["libc6-dev"]}


def missing_packages() -> list[str]:
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    return [package for tool in missing for package in [TOOLS[tool], *EXTRA_PACKAGES.get(tool, [])]]


def setup() -> None:
    missing = missing_packages()
    if not missing:
        say("nothing to install")
        return
    say(f"installing {' '.join(missing)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-q"], check=True, env=environment)
    subprocess.run(["apt-get", "install", "-qy", "--no-install-recommends", *missing], check=True, env=environment)


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="lab", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, words: str, host: bool = False) -> argparse.ArgumentParser:
        added = verbs.add_parser(name, help=words, description=words)
        if host:
            added.add_argument("host", metavar="HOST")
        return added

    verb("setup", "install what the lab needs from apt: " + " ".join(TOOLS.values()))
    verb("build", "build all that hosts and servers are made of; boots nothing, does nothing where all is there")
    up = verb("up", "build what is missing and boot N hosts; does nothing where all is up")
    up.add_argument("count", metavar="N", nargs="?", type=int, default=2, help="how many (default 2)")
    up.add_argument("--prepared", action="store_true", help="hosts on which the operator's Python environment is there")
    up.add_argument("--tiny", action="store_true", help="serve a tiny model of random weights instead of the real one")
    verb(
        "servers",
        "start what models and images come from: a hub, its mirror, a CDN, registries; needs a lab that is up",
    )
    verb("down", "remove hosts, interfaces, mounts and run-time state, also of a lab that died; keeps the cache")
    verb("status", "what is there")
    verb("addresses", "the hosts' addresses, as JSON")
    verb("inventory", "an Ansible inventory of the hosts, as JSON").add_argument(
        "--list", action="store_true", help="as Ansible calls an inventory script; changes nothing"
    )
    off = verb("poweroff", "shut a host down", host=True)
    off.add_argument("--pull", action="store_true", help="pull the plug instead: every process is killed at once")
    verb("poweron", "boot a host that is off", host=True)
    verb("reboot", "shut a host down and boot it again", host=True)
    verb("reset", "give a host a fresh root and boot it", host=True)
    verb("cut", "pull a host's network cable", host=True)
    verb("join", "put the cable in again", host=True)
    ssh = verb("ssh", "log in as operator, or run a command", host=True)
    ssh.usage = "lab ssh HOST [--root] [CMD ...]"
    ssh.add_argument("command", metavar="CMD", nargs=argparse.REMAINDER, help="--root before it: as root")
    gpu = verb("gpu", "what a host's GPUs show (state file: tests/lab/gpu/README.md)", host=True)
    gpu.add_argument("action", choices=["show", "set", "unset", "auto"], help="unset: back to the defaults")
    gpu.add_argument(
        "file",
        metavar="FILE",
        nargs="?",
        default="-",
        help="of set: the state, - is standard input; of auto: off, rss or MiB, which servers show up on the GPUs",
    )
    return top


def main() -> int:
    arguments = parser().parse_args()
    lab = Lab.open()
    if arguments.verb == "addresses":
        print(json.dumps(fleet.addresses(lab), indent=2))
        return 0
    if arguments.verb == "inventory":
        print(json.dumps(fleet.inventory(lab), indent=2))
        return 0
    if arguments.verb == "ssh":
        user, command = "operator", arguments.command
        # Everything after HOST belongs to the command, except its beginning.
        while command and command[0] in ("--", "--root"):
            user = "root" if command.pop(0) == "--root" else user
        argv = fleet.host(lab, arguments.host).ssh(user)
        os.execvp(argv[0], argv + command)
    if arguments.verb == "gpu" and arguments.action == "show":
        state = fleet.host(lab, arguments.host).gpu_state()
        print("(no state file: the default GPUs)" if state is None else state, end="\n" if state is None else "")
        return 0
    if arguments.verb == "status":
        print(fleet.status(lab), end="")
        return 0
    if os.geteuid():
        raise LabError(f"`lab {arguments.verb}` makes interfaces and mounts and boots machines: run it as root")
    if arguments.verb == "setup":
        setup()
        return 0
    if arguments.verb != "down" and (missing := missing_packages()):
        raise LabError(f"the lab needs {' '.join(missing)}: run `lab setup`, or apt-get install them")
    if arguments.verb == "build":
        fleet.build()
        return 0
    with lab.lock():
        change(lab, arguments)
    return 0


def change(lab: Lab, arguments: argparse.Namespace) -> None:
    begin = time.monotonic()
    if arguments.verb == "up":
        fleet.up(lab, arguments.count, arguments.prepared, arguments.tiny)
        return
    if arguments.verb == "servers":
        fleet.serve_all(lab)
        return
    if arguments.verb == "down":
        fleet.down(lab)
        return
    host: Host = fleet.host(lab, arguments.host)
    if arguments.verb == "poweroff":
        host.kill() if arguments.pull else host.power_off()
    elif arguments.verb == "poweron":
        host.power_on()
        host.wait_ready()
    elif arguments.verb == "reboot":
        host.power_off()
        host.power_on()
        host.wait_ready()
    elif arguments.verb == "reset":
        fleet.reset(lab, host)
    elif arguments.verb in ("cut", "join"):
        host.set_cable("down" if arguments.verb == "cut" else "up")
    elif arguments.verb == "gpu" and arguments.action == "auto":
        if not re.fullmatch("off|rss|[0-9]+", arguments.file):
            raise LabError(f"`lab gpu {host.name} auto {arguments.file}`: off, rss or a number of MiB")
        kept = [line for line in (host.gpu_state() or "").splitlines() if line.split()[:1] != ["auto"]]
        host.set_gpu_state("".join(f"{line}\n" for line in [*kept, f"auto {arguments.file}"]))
    elif arguments.verb == "gpu":
        text = sys.stdin.read() if arguments.file == "-" else Path(arguments.file).read_text()
        host.set_gpu_state(None if arguments.action == "unset" else text)
    say(f"{arguments.verb} {host.name}: done in {time.monotonic() - begin:.1f} s")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LabError as problem:
        sys.exit(f"lab: {problem}")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit("lab: nobody reads my output any more, I stopped")
    except KeyboardInterrupt:
        sys.exit("lab: interrupted; `lab down` removes what is left")
