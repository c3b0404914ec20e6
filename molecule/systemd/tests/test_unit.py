# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The manager systemd, with root: a unit of the host, and a server with few privileges."""

import re

UNIT = "llamacpp-4403-glm-4.7-flash-q4.service"


def show(host, *names):
    text = host.check_output(f"systemctl show {UNIT} -p {','.join(names)}")
    return dict(line.split("=", 1) for line in text.splitlines())


def test_the_unit_is_enabled_and_ready(host):
    assert host.service(UNIT).is_enabled
    assert show(host, "ActiveState", "SubState", "Type", "User") == {
        "ActiveState": "active",
        "SubState": "running",
        "Type": "notify",
        "User": "llamacpp",
    }


def test_it_is_outside_of_every_session(instance, host):
    """So a logout does not end it."""
    assert f"/system.slice/{UNIT}" in host.file(f"/proc/{instance.pid()}/cgroup").content_string


def test_the_unit_is_hardened(host):
    assert show(
        host, "CapabilityBoundingSet", "NoNewPrivileges", "PrivateTmp", "ProtectSystem", "ProtectKernelModules"
    ) == {
        "CapabilityBoundingSet": "",
        "NoNewPrivileges": "yes",
        "PrivateTmp": "yes",
        "ProtectSystem": "full",
        "ProtectKernelModules": "yes",
    }


def test_the_server_has_no_privileges(instance, host):
    status = host.file(f"/proc/{instance.account()['container_pid']}/status").content_string

    assert "NoNewPrivs:\t1\n" in status
    user = host.check_output("id -u llamacpp")
    assert f"Uid:\t{user}\t{user}\t{user}\t{user}\n" in host.file(f"/proc/{instance.pid()}/status").content_string


def test_the_server_may_not_change_files_that_root_runs(site, host):
    for path in ("", "/run.sh", "/runner.py", "/instance.json"):
        assert host.run(f"runuser -u llamacpp -- test -w {site.folder}{path}").rc == 1, path


def test_there_is_neither_supervisord_nor_a_crontab(host):
    assert host.run("pgrep -f supervisord").rc == 1
    assert "llamacpp" not in host.run("crontab -u root -l; crontab -u operator -l").stdout


def test_a_folder_that_its_user_may_not_enter_is_refused_before_a_change(instance, host, deploy):
    pid, mode = instance.pid(), host.check_output("stat -c %a /data/models")
    host.check_output("chmod 700 /data/models")
    try:
        refused = deploy("--tags", "llamacpp_instances", context_size=4096)
    finally:
        host.check_output(f"chmod {mode} /data/models")

    assert refused.failed == 1, refused.output
    words = re.sub(r"\s+", " ", refused.output)
    assert "user: llamacpp, which the server runs as, cannot enter /data/models (drwx------ " in words
    assert instance.pid() == pid
