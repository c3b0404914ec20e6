# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab as a whole: hosts, network and web server together."""

from __future__ import annotations

import hashlib
import shlex
import time
import urllib.error
import urllib.request
from pathlib import Path

import counterparts
import network
import stock
from group import Group
from images import MODEL_NAME, SIF_NAME, TINY_NAME, Images, build_all, build_prepared, build_tiny, venv_python
from machine import Host, forget_machine
from state import Lab, LabError, remove_tree, replace_file, run, say

HERE = Path(__file__).resolve().parent
PORT = 8000
MOST_HOSTS = 20


def host(lab: Lab, name: str) -> Host:
    known = lab.record.get("hosts", {})
    if name not in known:
        raise LabError(f"no host {name} in lab {lab.name}: {', '.join(known) or 'it has none'}; `lab up` makes them")
    return Host(lab, name)


def hosts(lab: Lab) -> list[Host]:
    return [Host(lab, name) for name in lab.record.get("hosts", {})]


def up(lab: Lab, count: int, prepared: bool = False, tiny: bool = False) -> None:
    """Boot hosts. ``prepared``: with the operator's Python environment; ``tiny``: the tiny model stands in for the
    real one.
    """
    if not 1 <= count <= MOST_HOSTS:
        raise LabError(f"N is {count}, expected 1 to {MOST_HOSTS}")
    begin = time.monotonic()
    lab.run.mkdir(parents=True, exist_ok=True)
    images = build_all()
    # Everything is recorded before it is made, so that `down` after a crash knows of it.
    lab.record["prepared"] = prepared
    layers = _layers(lab, images)
    model = build_tiny(images) / TINY_NAME if tiny else images.model / MODEL_NAME
    built = time.monotonic()
    lab.record["image_sha256"] = sha256(images.sif / SIF_NAME)
    lab.record["model"] = {"name": model.name, "sha256": sha256(model)}
    lab.save()
    known = lab.record.setdefault("hosts", {})
    for number in range(1, count + 1):
        known.setdefault(f"gpu{number}", {"number": number})
    network.up(lab)
    _make_keys(lab)
    _serve(lab, images, model.parent)
    started = []
    for one in hosts(lab):
        if one.number > count:
            continue
        if one.state() == "broken":
            one.kill()
        one.prepare(images, layers)
        if one.state() == "off":
            one.power_on()
            started.append(one)
        elif one.state() == "cut":
            one.set_cable("up")
    for one in started:
        one.wait_ready()
    now = time.monotonic()
    say(f"{count} hosts up, {len(started)} booted in {now - built:.1f} s; {now - begin:.1f} s in all")
    print(status(lab), end="")


def build() -> None:
    """Build what hosts and servers are made of, for all labs of this checkout."""
    images = build_all()
    build_prepared(images)
    stock.build(images)


def serve_all(lab: Lab) -> None:
    """Start the counterparts of models and images."""
    if "subnet" not in lab.record:
        raise LabError(f"lab {lab.name} is not up: `lab up` first, the servers are on its network")
    counterparts.up(lab, build_all())


def down(lab: Lab) -> None:
    """By what is found, not by what was recorded: the lab may have died at any moment."""
    existed = lab.run.exists()
    for group in Group.all(f"{lab.id}-"):
        group.kill()
        forget_machine(group.name, lab.run / "hosts" / group.name.removeprefix(f"{lab.id}-") / "root")
    network.down(lab)
    remove_tree(lab.run)
    say(f"lab {lab.name} is gone" if existed else f"lab {lab.name} was not there")


def reset(lab: Lab, one: Host) -> None:
    images = build_all()
    one.wipe()
    one.prepare(images, _layers(lab, images))
    one.power_on()
    one.set_cable("up")
    one.wait_ready()


def _layers(lab: Lab, images: Images) -> list[Path]:
    """What the roots of this lab's hosts consist of, the topmost layer first."""
    return [build_prepared(images), images.root] if lab.record.get("prepared") else [images.root]


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def url(lab: Lab) -> str:
    return f"http://{network.controller(lab)}:{PORT}"


def addresses(lab: Lab) -> dict:
    return {one.name: one.address for one in hosts(lab)}


def inventory(lab: Lab) -> dict:
    """In the shape of an Ansible inventory script."""
    if "subnet" not in lab.record:
        return {"_meta": {"hostvars": {}}}
    common = {
        "ansible_user": "operator",
        "ansible_ssh_private_key_file": str(lab.key),
        "ansible_ssh_common_args": f"-F {shlex.quote(str(lab.run / 'ssh_config'))}",
        "ansible_python_interpreter": "/usr/bin/python3",
        "lab_url": url(lab),
        "lab_model": lab.record["model"]["name"],
        "lab_model_url": f"{url(lab)}/models/{lab.record['model']['name']}",
        "lab_model_sha256": lab.record["model"]["sha256"],
        "lab_image_url": f"{url(lab)}/images/{SIF_NAME}",
        "lab_image_sha256": lab.record.get("image_sha256", ""),
        "lab_wheels_url": f"{url(lab)}/wheels/",
        **counterparts.addresses(lab),
    }
    variables = {one.name: {"ansible_host": one.address} for one in hosts(lab)}
    return {"_meta": {"hostvars": variables}, "lab": {"hosts": list(variables), "vars": common}}


def status(lab: Lab) -> str:
    if "subnet" not in lab.record:
        return f"lab {lab.name}: not up\n"
    lines = [
        f"lab {lab.name} on {lab.record['subnet']} (bridge {lab.id}), run-time folder {lab.run}",
        f"{url(lab)}/ {'serves models, images, wheels' if _server(lab).kept() else 'DOWN'}",
    ]
    lines += [f"{one.name}  {one.address}  {one.state()}" for one in hosts(lab)]
    ssh = shlex.join(["ssh", "-F", f"{lab.run}/ssh_config"])
    return "\n".join([*lines, f"{ssh} {' | '.join(addresses(lab))}   (operator; -l root)", ""])


def _make_keys(lab: Lab) -> None:
    """The key of the lab's users, the host key that all hosts have, and how ssh reaches them."""
    for key in (lab.key, lab.host_key):
        if not key.exists():
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"lab {lab.name}", "-f", key)
    public = lab.host_key.with_suffix(".pub").read_text().strip()
    known = [f"{address},{name} {public}\n" for name, address in addresses(lab).items()]
    replace_file(lab.run / "known_hosts", "".join(known))
    options = {
        "User": "operator",
        "IdentityFile": f'"{lab.key}"',
        "IdentitiesOnly": "yes",
        "UserKnownHostsFile": f'"{lab.run}/known_hosts"',
        "StrictHostKeyChecking": "yes",
        "ConnectTimeout": 10,
        "ServerAliveInterval": 3,
        "ServerAliveCountMax": 3,
        "LogLevel": "ERROR",
    }
    text = "".join(f"Host {name}\n    HostName {address}\n" for name, address in addresses(lab).items())
    network_part = lab.record["subnet"].rpartition(".")[0]
    text += f"Host gpu* {network_part}.*\n" + "".join(f"    {name} {value}\n" for name, value in options.items())
    replace_file(lab.run / "ssh_config", text)


def _server(lab: Lab) -> Group:
    return Group(f"{lab.id}-server")


def _serve(lab: Lab, images: Images, models: Path) -> None:
    folders = {"models": models, "images": images.sif, "wheels": images.wheels}
    words = [f"{name}={path}" for name, path in folders.items()]
    server, log = _server(lab), lab.run / "server.log"
    if server.kept() and lab.record.get("served") == words:
        return
    server.kill()
    lab.record["served"] = words
    lab.save()
    argv: list[str | Path] = [venv_python(), HERE / "server.py", network.controller(lab), str(PORT), *words]
    server.start(argv, log, {"PYTHONDONTWRITEBYTECODE": "1"})
    deadline = time.monotonic() + 20
    while not _serving(lab):
        if not server.kept() or time.monotonic() > deadline:
            raise LabError(f"the web server does not answer at {url(lab)}; its log ends:\n{log.read_text()[-2000:]}")
        time.sleep(0.05)


def _serving(lab: Lab) -> bool:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        return direct.open(url(lab) + "/", timeout=2).status == 200
    except (urllib.error.URLError, OSError):
        return False
