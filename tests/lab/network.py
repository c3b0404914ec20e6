# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's network: a bridge on a free subnet, and for each host a namespace that hangs on it by a veth pair.

Every interface carries the lab's folder as its alias. What does not carry it is not ours and is never touched.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterable

from state import Lab, LabError, digest, run

# RFC 2544: reserved for tests, so that no network of the user's is shadowed.
RANGE = ipaddress.IPv4Network("198.18.0.0/15")
FIRST_HOST = 10


def controller(lab: Lab) -> str:
    """The controller's address on the bridge."""
    return str(ipaddress.ip_network(lab.record["subnet"])[1])


def address(lab: Lab, number: int) -> str:
    return str(ipaddress.ip_network(lab.record["subnet"])[FIRST_HOST + number])


def choose_subnet(seed: str, taken: Iterable[str]) -> str:
    """The first free /24, starting at one that the seed picks, so that two labs hardly ever ask for the same."""
    networks: list[ipaddress.IPv4Network] = list(RANGE.subnets(new_prefix=24))
    used = [ipaddress.IPv4Network(network, strict=False) for network in taken]
    start = int(digest(seed), 16) % len(networks)
    for network in networks[start:] + networks[:start]:
        if not any(network.overlaps(other) for other in used):
            return str(network)
    raise LabError(f"no free /24 in {RANGE}: every one has an address or a route on this machine")


def taken_networks() -> list[str]:
    found = [
        f"{info['local']}/{info['prefixlen']}"
        for link in _ip_json("-4", "addr")
        for info in link["addr_info"]
        if "local" in info
    ]
    routes = [route["dst"] for route in _ip_json("-4", "route", "show", "table", "all")]
    return found + [route for route in routes if route != "default"]


def up(lab: Lab) -> None:
    """The bridge with the controller's address on it."""
    if "subnet" not in lab.record:
        lab.record["subnet"] = choose_subnet(str(lab.run), taken_networks())
        lab.save()
    if not _ours(lab, lab.id):
        run("ip", "link", "add", lab.id, "type", "bridge")
        run("ip", "link", "set", lab.id, "alias", lab.run)
    run("ip", "addr", "replace", f"{controller(lab)}/24", "dev", lab.id)
    run("ip", "link", "set", lab.id, "up")


def namespace(lab: Lab, host: str) -> str:
    return f"{lab.id}-{host}"


def plug(lab: Lab, host: str, number: int) -> None:
    """The host's namespace, and a cable from it to the bridge. Nothing is routed: there is no way out."""
    space, cable = namespace(lab, host), f"{lab.id}-{number}"
    if space not in run("ip", "netns", "list").stdout.split():
        run("ip", "netns", "add", space)
    if not _ours(lab, cable):
        run("ip", "link", "add", cable, "type", "veth", "peer", "name", "host0", "netns", space)
        run("ip", "link", "set", cable, "alias", lab.run, "master", lab.id)
    run("ip", "-n", space, "addr", "replace", f"{address(lab, number)}/24", "dev", "host0")
    run("ip", "-n", space, "link", "set", "lo", "up")
    run("ip", "-n", space, "link", "set", "host0", "up")
    run("ip", "link", "set", cable, "up")


def set_cable(lab: Lab, number: int, state: str) -> None:
    """Pull the host's cable ("down") or put it in again ("up")."""
    run("ip", "link", "set", f"{lab.id}-{number}", state)


def down(lab: Lab) -> None:
    """Remove every namespace and interface of this lab; with the namespace goes its cable."""
    for space in run("ip", "netns", "list").stdout.split():
        if space.startswith(f"{lab.id}-"):
            run("ip", "netns", "del", space)
    for link in _ip_json("link"):
        if link.get("ifalias") == str(lab.run):
            run("ip", "link", "del", link["ifname"], check=False)


def _ours(lab: Lab, name: str) -> bool:
    """True when our interface of that name exists, False when there is none."""
    for link in _ip_json("link"):
        if link["ifname"] == name:
            if link.get("ifalias") != str(lab.run):
                raise LabError(f"interface {name} exists and is not this lab's: remove it, or choose another LAB name")
            return True
    return False


def _ip_json(*words: str) -> list[dict]:
    return json.loads(run("ip", "-j", *words).stdout or "[]")
