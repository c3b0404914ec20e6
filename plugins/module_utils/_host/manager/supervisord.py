# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A client of supervisord's XML-RPC socket; supervisorctl would take a third of a second for each call.

Private to gpufleet.llamacpp; may change at any time. Methods and faults: supervisord.org, "XML-RPC API Documentation".
"""

from __future__ import annotations

import http.client
import socket
import time
import xmlrpc.client
from typing import Any

from ..process import command, parent_of, wait_for_end
from .base import NO_RESTART

TIMEOUT = 30.0  # s for an answer; no call makes supervisord wait for a program
EVERY = (
    0.02  # s between two calls; at each, supervisord looks after its children, which it otherwise does once a second
)
STOPPABLE = ("RUNNING", "STARTING", "BACKOFF")
ACTIVE = (*STOPPABLE, "STOPPING")
# Fault codes.
SHUTDOWN_STATE, BAD_NAME, ALREADY_STARTED, NOT_RUNNING = 6, 10, 60, 70


class Unreachable(Exception):
    """No supervisord answers at the socket, or it is shutting down. The message is a phrase for a ManagerError."""


class CallFailed(Exception):
    """supervisord answered a call with a fault. The message is supervisord's own."""


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
        # A new one for each call: supervisord closes idle ones, and the error would look like one of supervisord's.
        return _Connection(self.path)


class Daemon:
    """The supervisord that listens at this socket."""

    def __init__(self, path: str) -> None:
        self.path = path

    def call(self, method: str, *values: Any, ignore: tuple[int, ...] = ()) -> Any:
        """The answer to a call; None for a fault in ``ignore``. Raises Unreachable and CallFailed."""
        with xmlrpc.client.ServerProxy("http://localhost/RPC2", transport=_Transport(self.path)) as proxy:
            try:
                return getattr(proxy, method)(*values)
            except xmlrpc.client.Fault as fault:
                if fault.faultCode == SHUTDOWN_STATE:
                    raise Unreachable(f"supervisord at {self.path} is shutting down") from fault
                if fault.faultCode in ignore:
                    return None
                raise CallFailed(str(fault.faultString)) from fault
            except (OSError, http.client.HTTPException, xmlrpc.client.Error) as error:
                raise Unreachable(f"supervisord does not answer at {self.path} ({error})") from error

    def info(self, name: str) -> dict[str, Any]:
        """The state of a program; empty if supervisord does not have it."""
        return self.call("supervisor.getProcessInfo", name, ignore=(BAD_NAME,)) or {}

    def stop(self, name: str, timeout: float) -> bool:
        """Stop a program; whether it has stopped within ``timeout`` seconds.

        A call makes supervisord restart at once what has just exited. And a child that is still a copy of supervisord,
        forked but not yet its program, loses a TERM. So this waits for the child, and repeats the call.
        """
        deadline = time.monotonic() + timeout
        while not settled(info := self.info(name)):
            if time.monotonic() > deadline:
                return False
            if info["statename"] in STOPPABLE and not is_copy(info.get("pid")):
                self.call("supervisor.stopProcess", name, False, ignore=(BAD_NAME, NOT_RUNNING))
            if info.get("pid"):
                wait_for_end(info["pid"], EVERY)
            else:
                time.sleep(EVERY)
        return True

    def start(self, name: str) -> None:
        """Start a program, unless it runs."""
        self.call("supervisor.startProcess", name, False, ignore=(ALREADY_STARTED,))

    def reread(self, name: str, timeout: float) -> None:
        """Load the program's file as it is now. A program whose file is changed or gone is stopped first."""
        ((added, changed, removed),) = self.call("supervisor.reloadConfig")
        if name in (*changed, *removed):
            self.stop(name, timeout)
            self.call("supervisor.removeProcessGroup", name, ignore=(BAD_NAME,))
        if name in (*added, *changed):
            self.call("supervisor.addProcessGroup", name)

    def shut_down(self) -> None:
        """Shut supervisord down; returns at once."""
        self.call("supervisor.shutdown")


def settled(info: dict[str, Any]) -> bool:
    """Whether a program has ended and supervisord will not restart it by itself."""
    state = info.get("statename")
    return state not in ACTIVE and (state != "EXITED" or info.get("exitstatus") == NO_RESTART)


def is_copy(pid: int | None) -> bool:
    """Whether this child of supervisord was forked, and has not become its program yet."""
    parent = parent_of(pid) if pid else None
    return pid is not None and parent is not None and command(pid) == command(parent)
