# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The processes that listen on a TCP port, and whether a server of this user may listen there.

Private to gpufleet.llamacpp; may change at any time. Format: /proc/net/tcp, proc(5).
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass

from . import process

LISTEN = "0A"
LOWEST = "/proc/sys/net/ipv4/ip_unprivileged_port_start"


@dataclass(frozen=True)
class Listener:
    """One listening socket. Root knows the pid of every process, other users only of their own."""

    port: int
    user: str
    pid: int | None
    command: str

    def __str__(self) -> str:
        if self.pid is None:
            return f"a process of user {self.user} (only that user and root can see its pid and command)"
        return f"pid {self.pid} of user {self.user}: {self.command}"


def _sockets(port: int) -> dict[int, int]:
    """Inode and uid of each socket that listens on the port."""
    found = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table, encoding="ascii") as file:
                lines = file.readlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                found[int(fields[9])] = int(fields[7])
    return found


def _holders(inodes: set[int]) -> dict[int, int]:
    """The pid that has each socket open, as far as this user may see."""
    found = {}
    for pid in process.pids():
        try:
            handles = os.listdir(f"/proc/{pid}/fd")
        except OSError:
            continue
        for handle in handles:
            try:
                target = os.readlink(f"/proc/{pid}/fd/{handle}")
            except OSError:
                continue
            if target.startswith("socket:[") and int(target[8:-1]) in inodes:
                found[int(target[8:-1])] = pid
    return found


def listeners(port: int) -> list[Listener]:
    """Every process that listens on the TCP port, on any address. Connects to nothing."""
    sockets = _sockets(port)
    if not sockets:
        return []
    holders = _holders(set(sockets))
    found = []
    for inode, uid in sockets.items():
        pid = holders.get(inode)
        command = process.shown_command(pid, 120) if pid else ""
        found.append(Listener(port, process.user_name(uid), pid, command))
    return list(dict.fromkeys(found))


def lowest() -> int:
    """The lowest port that this user may listen on."""
    if os.geteuid() == 0:
        return 1
    try:
        with open(LOWEST, encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return 1024


def unusable(address: str) -> str | None:
    """Why no server can listen on this name or address; None if one can. Nothing stays bound."""
    try:
        family, kind, protocol, dummy, place = socket.getaddrinfo(address.strip("[]"), 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as server:
            server.bind(place)
    except OSError as error:
        return error.strerror or str(error)
    return None
