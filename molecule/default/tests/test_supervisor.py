# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The manager supervisor, without root and without lingering: the operator's crontab starts supervisord at boot."""

BOOT = (
    "@reboot /home/operator/llamacpp/venv/bin/supervisord -c /home/operator/llamacpp/supervisord.conf"
    " # gpufleet.llamacpp in /home/operator/llamacpp"
)
OWN = "0 3 * * * true # the operator's own"


def test_the_crontab_has_one_more_line(host):
    assert host.check_output("crontab -u operator -l").splitlines() == [OWN, BOOT]


def test_everything_belongs_to_the_operator(host):
    assert {process.user for process in host.process.filter(comm="supervisord")} == {"operator"}
    assert host.run("find /home/operator ! -user operator").stdout == ""
    assert host.file("/home/operator/llamacpp/run").mode == 0o700


def test_logout_of_the_last_session(instance, host):
    pid = instance.pid()

    # The host has its own process ids, so this ends only its logins.
    host.check_output("pkill -f '^sshd-session: operator'")
    instance.wait(lambda: host.run("pgrep -f '^sshd-session: operator'").rc == 1, "the end of the sessions")
    # logind does this some seconds later if a user does not linger.
    host.check_output("systemctl stop user@1000.service")

    assert "active" not in host.run("loginctl show-user operator -p State --value").stdout
    assert instance.pid() == pid
    assert instance.health() == 200


def test_the_next_deploy_starts_a_missing_supervisord(instance, host, deploy):
    host.check_output("kill -9 $(cat /home/operator/llamacpp/run/supervisord.pid)")
    assert instance.health() == 200

    done = deploy("--diff", "--tags", "llamacpp_instances")

    assert (done.changed, done.failed) == (1, 0), done.output
    assert "the server runs, but supervisord does not" in done.output
    assert "supervisord" in instance.parents()[2]


def test_a_server_without_supervisord_can_be_restarted_by_hand(instance, host):
    host.check_output("kill -9 $(cat /home/operator/llamacpp/run/supervisord.pid)")

    restarted = instance.script("restart")

    assert restarted.rc == 0, restarted
    assert "supervisord" in instance.parents()[2]
    assert instance.health() == 200
