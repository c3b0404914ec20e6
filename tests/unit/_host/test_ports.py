# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The processes that listen on a port, with real sockets."""

from __future__ import annotations

import os
import pwd
import socket
from pathlib import Path

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._host import ports, process

ME = pwd.getpwuid(os.geteuid()).pw_name


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_a_listener_is_named(family: socket.AddressFamily, address: str) -> None:
    with socket.socket(family) as server:
        try:
            server.bind((address, 0))
        except OSError:
            pytest.skip(f"this machine has no {address}")
        port = server.getsockname()[1]
        assert ports.listeners(port) == []
        server.listen()
        found = ports.listeners(port)
        assert [(one.port, one.user, one.pid) for one in found] == [(port, ME, os.getpid())]
        assert found[0].command == " ".join(process.command(os.getpid()))[:120]
        assert str(found[0]).startswith(f"pid {os.getpid()} of user {ME}: ")
    assert ports.listeners(port) == []


def test_a_connection_is_no_listener() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        assert ports.listeners(client.getsockname()[1]) == []


def test_two_addresses_of_one_process_are_one_listener() -> None:
    with socket.create_server(("127.0.0.1", 0)) as one:
        port = one.getsockname()[1]
        with socket.create_server(("127.0.0.2", port)):
            assert len(ports.listeners(port)) == 1


def test_a_listener_that_we_may_not_look_into(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "pids", lambda: iter(()))
    with socket.create_server(("127.0.0.1", 0)) as server:
        found = ports.listeners(server.getsockname()[1])
    assert [one.pid for one in found] == [None]
    assert str(found[0]) == (f"a process of user {ME} (only that user and root can see its pid and command)")


def test_a_host_without_ipv6(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = open

    def without(path: str, *args: object, **more: object) -> object:
        if path == "/proc/net/tcp6":
            raise FileNotFoundError(path)
        return real(path, *args, **more)  # type: ignore[call-overload]

    monkeypatch.setattr("builtins.open", without)
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert len(ports.listeners(server.getsockname()[1])) == 1


def test_a_port_that_needs_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "lowest").write_text("80\n")
    monkeypatch.setattr(ports, "LOWEST", str(tmp_path / "lowest"))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert ports.lowest() == 80
    monkeypatch.setattr(ports, "LOWEST", str(tmp_path / "nothing"))
    assert ports.lowest() == 1024
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert ports.lowest() == 1


def test_addresses_of_this_host_and_of_none() -> None:
    assert [ports.unusable(address) for address in ("127.0.0.1", "0.0.0.0", "localhost")] == [None] * 3
    assert ports.unusable("192.0.2.1") == "Cannot assign requested address"  # kept for documentation by RFC 5737
    assert ports.unusable("no.such.host.invalid")
