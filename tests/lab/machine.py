# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One host: a systemd-nspawn machine on its own root and its own namespace of the network."""

from __future__ import annotations

import filecmp
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import network
from images import Images
from state import Lab, LabError, Process, digest, last_line, remove_tree, run

HERE = Path(__file__).resolve().parent
BOOT_SECONDS = 60
SHUTDOWN_SECONDS = 40
GPU_STATE = "etc/fakenvml.state"


class Host:
    def __init__(self, lab: Lab, name: str) -> None:
        self.lab = lab
        self.name = name
        self.folder = lab.run / "hosts" / name
        self.root = self.folder / "root"

    @property
    def record(self) -> dict:
        return self.lab.record["hosts"][self.name]

    @property
    def number(self) -> int:
        return self.record["number"]

    @property
    def address(self) -> str:
        return network.address(self.lab, self.number)

    @property
    def keeper(self) -> Process | None:
        found = self.record.get("keeper")
        return Process(**found) if found else None

    def running(self) -> bool:
        """The keeper is alive, or what it kept still is (somebody killed the keeper only)."""
        return bool(self.keeper and self.keeper.alive()) or self._populated()

    def state(self) -> str:
        if not (self.keeper and self.keeper.alive()):
            return "broken" if self._populated() else "off"
        return "cut" if self.record.get("cut") else "up"

    # -- root ------------------------------------------------------------------------------------------------------

    def prepare(self, images: Images) -> None:
        """A root for the host: what every host shares below, what this one changed above."""
        if self.record.get("root") != images.root.name:
            self.wipe()
            self.record["root"] = images.root.name
            self.lab.save()
        for name in ("upper", "work", "root"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        if not os.path.ismount(self.root):
            layers = f"lowerdir={images.root},upperdir={self.folder}/upper,workdir={self.folder}/work"
            run("mount", "-t", "overlay", self.lab.id, "-o", layers, self.root)
        if not (self.root / "etc/hostname").exists():
            self._make_individual()
        if images.gpu:
            self._install_gpu(images.gpu)

    def wipe(self) -> None:
        """Power off and forget everything the host ever wrote."""
        self.kill()
        remove_tree(self.folder)

    def _make_individual(self) -> None:
        names = "".join(f"{network.address(self.lab, number)} gpu{number}\n" for number in range(1, 21))
        # Through a shared home there is one key for both users: the lab's.
        for home, owner in (("root", "root"), ("home/operator", "operator")):
            keys = self.root / home / ".ssh" / "authorized_keys"
            keys.parent.mkdir(mode=0o700, exist_ok=True)
            shutil.copy(f"{self.lab.key}.pub", keys)
            run("chroot", self.root, "chown", "-R", f"{owner}:", f"/{home}/.ssh")
        (self.root / "etc/hosts").write_text(f"127.0.0.1 localhost\n{network.controller(self.lab)} controller\n{names}")
        (self.root / "etc/machine-id").write_text(digest(self.lab.id, self.name, time.time())[:32] + "\n")
        (self.root / "etc/hostname").write_text(f"{self.name}\n")

    def _install_gpu(self, gpu: Path) -> None:
        targets = {"libnvidia-ml.so.1": "usr/lib/fakenvml/libnvidia-ml.so.1", "nvidia-smi": "usr/bin/nvidia-smi"}
        for source, target in targets.items():
            path = self.root / target
            if path.exists() and filecmp.cmp(gpu / source, path, shallow=False):
                continue
            path.parent.mkdir(exist_ok=True)
            # By rename: a running server may have the old library mapped.
            new = path.with_name(path.name + ".new")
            shutil.copy(gpu / source, new)
            new.rename(path)
            (self.root / "etc/ld.so.conf.d/fakenvml.conf").write_text("/usr/lib/fakenvml\n")
            run("chroot", self.root, "ldconfig")

    # -- power -----------------------------------------------------------------------------------------------------

    def power_on(self) -> None:
        """Start it. Returns at once; wait_ready() waits."""
        if self.running():
            if self.keeper and self.keeper.alive():
                return
            self.kill()
        network.plug(self.lab, self.name, self.number)
        groups = self._groups()
        for group in groups:
            group.mkdir(exist_ok=True)
        argv = ["systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit", "--settings=no"]
        argv += ["--capability=all", "--console=read-only", "--link-journal=no", "--resolv-conf=off", "--timezone=off"]
        argv += [f"--directory={self.root}", f"--machine={self._machine()}", f"--hostname={self.name}"]
        argv += [f"--network-namespace-path=/run/netns/{network.namespace(self.lab, self.name)}"]
        with (self.folder / "console.log").open("wb") as console:
            process = subprocess.Popen(
                [sys.executable, HERE / "keeper.py", ",".join(map(str, groups)), *argv],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
                # The hosts run systemd of the unified hierarchy, whatever this machine has.
                env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            )
        self.record["keeper"] = vars(Process.of(process.pid))
        self.record["cut"] = False
        self.lab.save()

    def wait_ready(self) -> None:
        """Until the operator can log in and the boot is over."""
        deadline = time.monotonic() + BOOT_SECONDS
        while not self._answers():
            if not self.running():
                raise LabError(f"{self.name} ended while it booted; its console: {self._console()}")
            if time.monotonic() > deadline:
                raise LabError(f"{self.name} has no sshd {BOOT_SECONDS} s after power on; its console: {self._console()}")
            time.sleep(0.05)
        state = run(*self.ssh("root"), "systemctl is-system-running --wait", check=False).stdout.strip()
        if state != "running":
            failed = run(*self.ssh("root"), "systemctl --failed --plain --no-legend", check=False).stdout.strip()
            found = state or "not reachable by ssh"
            raise LabError(f"{self.name} is {found} after its boot: {failed or self._console()}")

    def power_off(self) -> None:
        """An orderly shutdown; after SHUTDOWN_SECONDS the plug is pulled."""
        if self.keeper and self.keeper.alive():
            self.keeper.signal(signal.SIGTERM)
            self.keeper.wait(SHUTDOWN_SECONDS)
        self.kill()

    def kill(self) -> None:
        """Pull the plug: every process of the host ends now, and nothing of it stays in this machine's cgroups."""
        for group in self._groups():
            if group.exists():
                if (group / "cgroup.kill").exists():
                    (group / "cgroup.kill").write_text("1")
                _remove_group(group)
        if self.keeper:
            self.keeper.wait(5)
        for left in (Path("/run/systemd/nspawn/propagate") / self._machine(),):
            if left.is_dir():
                left.rmdir()

    def remove(self) -> None:
        self.wipe()
        network.unplug(self.lab, self.name, self.number)

    def set_cable(self, state: str) -> None:
        network.set_cable(self.lab, self.number, state)
        self.record["cut"] = state == "down"
        self.lab.save()

    # -- inside ----------------------------------------------------------------------------------------------------

    def ssh(self, user: str) -> list[str]:
        return ["ssh", "-F", str(self.lab.run / "ssh_config"), "-l", user, self.name]

    def gpu_state(self) -> str | None:
        """The state file of the faked GPUs; None: the defaults of tests/lab/gpu."""
        path = self.root / GPU_STATE
        return path.read_text() if path.exists() else None

    def set_gpu_state(self, text: str | None) -> None:
        path = self.root / GPU_STATE
        if text is None:
            path.unlink(missing_ok=True)
            return
        new = path.with_name(path.name + ".new")
        new.write_text(text)
        new.chmod(0o644)
        new.rename(path)

    def _answers(self) -> bool:
        try:
            with socket.create_connection((self.address, 22), timeout=0.5) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False

    def _console(self) -> str:
        console = self.folder / "console.log"
        return last_line(console) if console.exists() else "(nothing)"

    def _machine(self) -> str:
        return f"{self.lab.id}-{self.name}"

    def _groups(self) -> list[Path]:
        return [root / self._machine() for root in _cgroup_roots()]

    def _populated(self) -> bool:
        events = self._groups()[0] / "cgroup.events"
        return events.exists() and "populated 1" in events.read_text()


def _cgroup_roots() -> list[Path]:
    """Where the unified hierarchy is mounted, and systemd's own of version 1 on a machine that has both."""
    unified, named = [], []
    for line in Path("/proc/self/mounts").read_text().splitlines():
        dummy, point, kind, options = line.split()[:4]
        if kind == "cgroup2":
            unified.append(Path(point))
        elif kind == "cgroup" and "name=systemd" in options.split(","):
            named.append(Path(point))
    if not unified:
        raise LabError("no cgroup2 in /proc/mounts: the hosts' systemd needs the unified control groups")
    return unified[:1] + named[:1]


def _remove_group(group: Path) -> None:
    deadline = time.monotonic() + 10
    while group.exists():
        for folder in [*sorted(group.rglob("*/"), reverse=True), group]:
            try:
                folder.rmdir()
            except FileNotFoundError:
                pass
            except OSError:
                if time.monotonic() > deadline:
                    raise LabError(f"{folder}: processes in it do not end after SIGKILL") from None
        time.sleep(0.01)
