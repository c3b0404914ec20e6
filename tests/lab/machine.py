# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One host: a systemd-nspawn machine on its own root and its own namespace of the network."""

from __future__ import annotations

import filecmp
import os
import shutil
import socket
import time
from pathlib import Path

import network
from group import Group
from images import Images
from state import Lab, LabError, digest, last_line, mount_overlay, remove_tree, run

BOOT_SECONDS = 60
SHUTDOWN_SECONDS = 40
GPU_STATE = "etc/fakenvml.state"


class Host:
    def __init__(self, lab: Lab, name: str) -> None:
        self.lab = lab
        self.name = name
        self.folder = lab.run / "hosts" / name
        self.root = self.folder / "root"
        self.group = Group(f"{lab.id}-{name}")

    @property
    def record(self) -> dict:
        return self.lab.record["hosts"][self.name]

    @property
    def number(self) -> int:
        return self.record["number"]

    @property
    def address(self) -> str:
        return network.address(self.lab, self.number)

    def state(self) -> str:
        if not self.group.kept():
            return "broken" if self.group.populated() else "off"
        return "cut" if self.record.get("cut") else "up"

    # -- root ------------------------------------------------------------------------------------------------------

    def prepare(self, images: Images, layers: list[Path]) -> None:
        """A root for the host: the layers that hosts share, and above them what this host changes."""
        # The inode too: somebody may have emptied the cache below a running host.
        base = " ".join(f"{layer.name} {layer.stat().st_ino}" for layer in layers)
        if self.record.get("root") != base:
            self.wipe()
            self.record["root"] = base
            self.lab.save()
        if not os.path.ismount(self.root):
            mount_overlay(self.lab.id, layers, self.folder)
        if not (self.root / "etc/hostname").exists():
            self._make_individual()
        self._install_gpu(images.gpu)

    def wipe(self) -> None:
        """Power off and forget everything the host ever wrote."""
        self.kill()
        remove_tree(self.folder)

    def _make_individual(self) -> None:
        names = "".join(f"{network.address(self.lab, number)} gpu{number}\n" for number in range(1, 21))
        for home, owner in (("root", "root"), ("home/operator", "operator")):
            keys = self.root / home / ".ssh" / "authorized_keys"
            keys.parent.mkdir(mode=0o700, exist_ok=True)
            shutil.copy(f"{self.lab.key}.pub", keys)
            run("chroot", self.root, "chown", "-R", f"{owner}:", f"/{home}/.ssh")
        for key in (self.root / "etc/ssh").glob("ssh_host_*"):
            key.unlink()
        for key in (self.lab.host_key, self.lab.host_key.with_suffix(".pub")):
            shutil.copy(key, self.root / "etc/ssh" / key.name)
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
        if self.group.kept():
            return
        self.kill()
        network.plug(self.lab, self.name, self.number)
        argv = ["systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit", "--settings=no"]
        argv += ["--capability=all", "--console=read-only", "--link-journal=no", "--resolv-conf=off", "--timezone=off"]
        argv += [f"--directory={self.root}", f"--machine={self.group.name}", f"--hostname={self.name}"]
        argv += [f"--network-namespace-path=/run/netns/{network.namespace(self.lab, self.name)}"]
        # The hosts run systemd of the unified hierarchy, whatever this machine has; and no host has nspawn's filter of
        # system calls over everything, which keeps pidfd_getfd from all.
        settings = {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1", "SYSTEMD_SECCOMP": "0"}
        self.group.start(argv, self.folder / "console.log", settings)
        self.record["cut"] = False
        self.lab.save()

    def wait_ready(self) -> None:
        """Until the operator can log in and the boot is over."""
        deadline = time.monotonic() + BOOT_SECONDS
        while not self._answers():
            if not self.group.kept():
                raise LabError(f"{self.name} ended while it booted; its console: {self._console()}")
            if time.monotonic() > deadline:
                raise LabError(f"{self.name} has no sshd after {BOOT_SECONDS} s; its console: {self._console()}")
            time.sleep(0.05)
        state = run(*self.ssh("root"), "systemctl is-system-running --wait", check=False).stdout.strip()
        if state != "running":
            failed = run(*self.ssh("root"), "systemctl --failed --plain --no-legend", check=False).stdout.strip()
            found = state or "not reachable by ssh"
            raise LabError(f"{self.name} is {found} after its boot: {failed or self._console()}")

    def power_off(self) -> None:
        """An orderly shutdown; after SHUTDOWN_SECONDS the plug is pulled."""
        self.group.ask_to_end(SHUTDOWN_SECONDS)
        self.kill()

    def kill(self) -> None:
        """Pull the plug: every process of the host ends now."""
        self.group.kill()
        forget_machine(self.group.name, self.root)

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


def forget_machine(name: str, root: Path) -> None:
    """Remove what a killed systemd-nspawn leaves behind in /run."""
    nspawn = Path("/run/systemd/nspawn")
    if root.exists():
        status = root.stat()
        (nspawn / "locks" / f"inode-{status.st_dev}:{status.st_ino}").unlink(missing_ok=True)
    if (nspawn / "propagate" / name).is_dir():
        (nspawn / "propagate" / name).rmdir()
