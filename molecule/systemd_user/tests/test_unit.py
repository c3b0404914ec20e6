# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The manager systemd_user, without root and with lingering: a unit of the operator's own systemd."""

UNIT = "llamacpp-4403-glm-4.7-flash-q4.service"


def test_the_unit_is_the_operators_own(site, instance, host):
    assert host.file(f"/home/operator/.config/systemd/user/{UNIT}").user == "operator"
    assert not host.file(f"/etc/systemd/system/{UNIT}").exists
    assert f"/user@1000.service/app.slice/{UNIT}" in host.file(f"/proc/{instance.pid()}/cgroup").content_string
    state = instance.login.check_output(
        f"XDG_RUNTIME_DIR=/run/user/1000 systemctl --user show {UNIT} -p ActiveState,UnitFileState,Type"
    )
    assert sorted(state.splitlines()) == ["ActiveState=active", "Type=notify", "UnitFileState=enabled"]


def test_there_is_neither_supervisord_nor_a_crontab(host):
    assert host.run("pgrep -f supervisord").rc == 1
    assert host.check_output("crontab -u operator -l") == "0 3 * * * true # the operator's own"


def test_logout_of_the_last_session(instance, host):
    pid = instance.pid()

    # The host has its own process ids, so this ends only its logins.
    host.check_output("pkill -f '^sshd-session: operator'")
    instance.wait(lambda: host.run("pgrep -f '^sshd-session: operator'").rc == 1, "the end of the sessions")

    instance.wait(
        lambda: host.run("loginctl show-user operator -p State --value").stdout.strip() == "lingering",
        "logind to see the logout",
    )
    assert instance.pid() == pid
    assert instance.health() == 200
