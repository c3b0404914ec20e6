# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What supervisord is asked, and answers, at its socket: supervisorctl without its third of a second for each word.

Private to gpufleet.llamacpp; may change at any time. Methods and faults: supervisord.org, "XML-RPC API Documentation".
"""

from __future__ import annotations

import http.client
import socket
import time
import xmlrpc.client
from typing import Any

from ..process import command, parent_of, wait_end
from .base import RESTART_EXCEPT

TIMEOUT = 30.0  # s for an answer; nothing is asked that supervisord has to wait for
EVERY = 0.02  # s between two questions; each has supervisord look after its children, which it does once a second else
STOPPABLE = ("RUNNING", "STARTING", "BACKOFF")
ACTIVE = (*STOPPABLE, "STOPPING")
# Fault codes.
SHUTDOWN_STATE, BAD_NAME, ALREADY_STARTED, NOT_RUNNING = 6, 10, 60, 70


class Unreachable(Exception):
    """No supervisord answers at the socket, or one that is leaving."""


class Refused(Exception):
    """supervisord does not do what it was asked; the message is its own."""


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT)
        self.sock.connect(self.path)


class _Transport(xmlrpc.client.Transport):
    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        # Not kept: supervisord closes what is idle, and an error there would look like one of supervisord's.
        return _Connection(self.path)


class Daemon:
    """The supervisord whose socket is at this path."""

    def __init__(self, path: str) -> None:
        self.path = path

    def call(self, method: str, *values: Any, ignore: tuple[int, ...] = ()) -> Any:
        """The answer to a method of its API; None for a fault to ignore. Raises Unreachable and Refused."""
        with xmlrpc.client.ServerProxy("http://localhost/RPC2", transport=_Transport(self.path)) as proxy:
            try:
                return getattr(proxy, method)(*values)
            except xmlrpc.client.Fault as fault:
                if fault.faultCode == SHUTDOWN_STATE:
                    raise Unreachable(f"supervisord at {self.path} is shutting down") from fault
                if fault.faultCode in ignore:
                    return None
                raise Refused(str(fault.faultString)) from fault
            except (OSError, http.client.HTTPException, xmlrpc.client.Error) as error:
                raise Unreachable(f"nobody answers at {self.path}: {error}") from error

    def info(self, name: str) -> dict[str, Any]:
        """What it knows of a program; empty where it does not know it."""
        return self.call("supervisor.getProcessInfo", name, ignore=(BAD_NAME,)) or {}

    def stop(self, name: str, patience: float) -> bool:
        """Have a program stopped; whether it has, within so many seconds.

        A question is enough to have it start at once what has just exited, and a child that is not yet its program, but
        still a copy of supervisord, loses a TERM. So that is waited for, and it is asked as often as it takes.
        """
        deadline = time.monotonic() + patience
        while not settled(info := self.info(name)):
            if time.monotonic() > deadline:
                return False
            if info["statename"] in STOPPABLE and not is_copy(info.get("pid")):
                self.call("supervisor.stopProcess", name, False, ignore=(BAD_NAME, NOT_RUNNING))
            if info.get("pid"):
                wait_end(info["pid"], EVERY)
            else:
                time.sleep(EVERY)
        return True

    def start(self, name: str) -> None:
        """Have a program started, if it is not."""
        self.call("supervisor.startProcess", name, False, ignore=(ALREADY_STARTED,))

    def reread(self, name: str, patience: float) -> None:
        """Take a program in as its file is now; where the file is gone or changed, it is stopped first."""
        ((added, changed, removed),) = self.call("supervisor.reloadConfig")
        if name in (*changed, *removed):
            self.stop(name, patience)
            self.call("supervisor.removeProcessGroup", name, ignore=(BAD_NAME,))
        if name in (*added, *changed):
            self.call("supervisor.addProcessGroup", name)

    def shut_down(self) -> None:
        """Have it leave; returns at once."""
        self.call("supervisor.shutdown")


def settled(info: dict[str, Any]) -> bool:
    """Whether a program has ended and supervisord will not start it again by itself."""
    state = info.get("statename")
    return state not in ACTIVE and (state != "EXITED" or info.get("exitstatus") == RESTART_EXCEPT)


def is_copy(pid: int | None) -> bool:
    """Whether this child of supervisord has been forked, and has not become its program yet."""
    parent = parent_of(pid) if pid else None
    return pid is not None and parent is not None and command(pid) == command(parent)
