# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A change over three hosts: the order of the hosts, the other hosts when one fails, and the next run.

Each change is another context size, so a host's command line shows which change it has.
"""

import re
import time

import pytest

NAME = "4403-glm-4.7-flash-q4"
HOME = "/home/operator/llamacpp"
HOSTS = ("gpu1", "gpu2", "gpu3")
EXTRA = {"name": "4404-extra", "port": 4404, "model": "SmolLM2-tiny.gguf", "context_size": 2048}


class Fleet:
    """The hosts, seen from outside, and rollouts over them."""

    def __init__(self, hosts, run_playbook, begin_playbook, overrides):
        self.hosts, self.run_playbook, self.begin_playbook, self.overrides = (
            hosts,
            run_playbook,
            begin_playbook,
            overrides,
        )

    def _variables(self, settings, variables):
        # The subject is the order of the hosts. The gate has tests elsewhere.
        return {"llamacpp_instance_overrides": self.overrides(**{"gate": "health", **settings}), **variables}

    def deploy(self, *words, rollout=None, **settings):
        more = {"llamacpp_rollout": rollout} if rollout else {}
        return self.run_playbook("deploy-4403", *words, **self._variables(settings, more))

    def begin(self, *words, **settings):
        return self.begin_playbook("deploy-4403", *words, **self._variables(settings, {}))

    def serving(self, names=HOSTS):
        """The pid and the context of each host's server, which has to answer."""
        found = {}
        for name in names:
            health = self.hosts[name].run("curl -s -o /dev/null -m 5 -w '%{http_code}' http://127.0.0.1:4403/health")
            assert health.stdout == "200", f"{name}: {health.stdout}"
            (line,) = self.hosts[name].check_output("pgrep -ax llama-server").splitlines()
            found[name] = (int(line.split()[0]), int(re.search(r" -c (\d+)", line)[1]))
        return found

    def contexts(self):
        return {name: context for name, (dummy, context) in self.serving().items()}


@pytest.fixture(scope="session")
def fleet(connect, run_playbook, begin_playbook, changed_overrides):
    return Fleet({name: connect("root", name) for name in HOSTS}, run_playbook, begin_playbook, changed_overrides)


def table(output):
    """The outcome of each host in the rollout's table."""
    lines = output[output.index("HOST  OUTCOME") :].splitlines()
    words = "deployed|unchanged|FAILED|LOST|not reached|unreachable|would change|WOULD FAIL"
    return {found[1]: found[2] for line in lines if (found := re.match(rf"(gpu\d)  ({words})\b", line))}


def batches(output):
    """The hosts of each batch whose instance was deployed."""
    parts = output.split("PLAY [Deploy ")[1:]
    return [sorted(set(re.findall(r"(?:changed|ok|failed): \[(gpu\d)\] => \(item=4403", part))) for part in parts]


def test_one_host_first_and_then_the_batches(fleet):
    before = fleet.serving()
    preview = fleet.deploy("--check", context_size=4096)
    assert preview.code == 0 and table(preview.output) == dict.fromkeys(HOSTS, "would change"), preview.output
    assert fleet.serving() == before

    done = fleet.deploy(context_size=4096, rollout={"batch": 2})

    assert done.code == 0, done.output
    assert batches(done.output) == [["gpu1"], ["gpu2", "gpu3"]]
    assert table(done.output) == dict.fromkeys(HOSTS, "deployed")
    assert fleet.contexts() == dict.fromkeys(HOSTS, 4096)
    again = fleet.deploy(context_size=4096)
    assert again.code == 0 and all(numbers["changed"] == 0 for numbers in again.recap.values()), again.output
    assert "PLAY [Deploy GLM-4.7-Flash on port 4403]" in again.output and "no hosts matched" in again.output


def test_a_rollout_stops_at_the_first_host_that_fails(fleet, lab):
    """The fake GPUs of one host show no process, so its gate fails and the last release is restored."""
    before = fleet.serving()
    lab("gpu", "gpu2", "auto", "off")
    try:
        failed = fleet.deploy(context_size=6144, gate="full", gate_prompt_tokens=0, rollout={"batch": 1})
    finally:
        lab("gpu", "gpu2", "auto", "rss")

    assert failed.code != 0
    assert table(failed.output) == {"gpu1": "deployed", "gpu2": "FAILED", "gpu3": "not reached"}, failed.output
    assert "Back on the release of" in failed.output[failed.output.index("HOST  OUTCOME") :]
    now = fleet.serving()
    assert {name: context for name, (dummy, context) in now.items()} == {"gpu1": 6144, "gpu2": 4096, "gpu3": 4096}
    assert now["gpu3"] == before["gpu3"], "gpu3 was changed"

    # The next run continues: the first host that needs a change is the canary.
    kept = fleet.serving()["gpu1"]
    repaired = fleet.deploy(context_size=6144, rollout={"batch": 1})
    assert repaired.code == 0, repaired.output
    assert table(repaired.output) == {"gpu1": "deployed", "gpu2": "deployed", "gpu3": "deployed"}
    assert fleet.contexts() == dict.fromkeys(HOSTS, 6144)
    assert fleet.serving()["gpu1"][0] == kept[0], "a server with the desired state was restarted"


def test_a_problem_of_one_host_is_known_before_any_host_is_changed(fleet, lab, tmp_path):
    before = fleet.serving()
    gpu = "gpu 2 GPU-2f5a1c00-fa4e-4e56-8d4c-000000000002 00000000:9C:00.0 143771 625 143000 0 0 1 0 0 NVIDIA H200 NVL"
    (tmp_path / "gpus").write_text(f"auto rss\n{gpu}\n")
    lab("gpu", "gpu3", "set", str(tmp_path / "gpus"))
    try:
        refused = fleet.deploy(context_size=4096)
    finally:
        lab("gpu", "gpu3", "unset")

    assert refused.code != 0
    assert "does not fit on GPU 2" in refused.output
    words = re.sub(r"\s+", " ", refused.output)
    assert "gpu3 is not ready, see above. No server was changed on any host." in words
    assert "--limit '!gpu3'" in words.replace("''", "'")
    assert fleet.serving() == before
    assert {name: numbers["failed"] for name, numbers in refused.recap.items()} == {"gpu1": 0, "gpu2": 0, "gpu3": 1}


def test_a_model_that_does_not_arrive_stops_no_server(fleet):
    before = fleet.serving()
    url = "{{ lab_model_url if inventory_hostname != 'gpu2' else lab_url ~ '/models/nowhere.gguf' }}"
    model = {"path": "other.gguf", "url": url, "sha256": "{{ lab_model_sha256 }}"}

    failed = fleet.deploy(model=model)

    assert failed.code != 0 and "HTTP 404" in failed.output, failed.output
    assert fleet.serving() == before


def test_a_host_that_cannot_be_reached_is_left_out_and_reported(fleet, lab):
    before = fleet.serving()
    lab("cut", "gpu1")
    try:
        done = fleet.deploy(context_size=4096)
    finally:
        lab("join", "gpu1")

    assert done.code == 4, done.output
    assert table(done.output) == {"gpu1": "unreachable", "gpu2": "deployed", "gpu3": "deployed"}
    assert fleet.contexts() == {"gpu1": 6144, "gpu2": 4096, "gpu3": 4096}
    assert fleet.serving()["gpu1"] == before["gpu1"]
    after = fleet.deploy(context_size=4096)
    assert after.code == 0 and table(after.output)["gpu1"] == "deployed", after.output


def test_a_host_that_reboots_in_the_middle(fleet, lab, late_start):
    """The connection breaks while the host is changed: the host is lost, the others stay, the next run continues."""
    before = fleet.serving()
    running = fleet.begin(context_size=6144, **late_start(gpu1=20, gpu2=0, gpu3=0))
    deadline = time.monotonic() + 120
    while fleet.hosts["gpu1"].run(f"test -d /proc/{before['gpu1'][0]}").rc != 1:
        assert time.monotonic() < deadline, "the old server was not stopped"
    lab("reboot", "gpu1")
    lost = running.wait()

    assert lost.code != 0
    assert table(lost.output) == {"gpu1": "LOST", "gpu2": "not reached", "gpu3": "not reached"}, lost.output
    others = fleet.serving(("gpu2", "gpu3"))
    assert others == {name: before[name] for name in others}, "they were changed"
    after = fleet.deploy(context_size=6144)
    assert after.code == 0, after.output
    assert fleet.contexts() == dict.fromkeys(HOSTS, 6144)


def test_a_slow_host_has_its_wait_timeout_and_no_more(fleet, late_start):
    before = fleet.serving()
    slow = late_start(gpu1=0, gpu2=20, gpu3=0)

    late = fleet.deploy(wait_timeout=12, rollout={"batch": 1}, **slow)

    assert table(late.output) == {"gpu1": "deployed", "gpu2": "FAILED", "gpu3": "not reached"}, late.output
    assert "did not return 200 within 12 s" in re.sub(r"\s+", " ", late.output)
    assert "Back on the release of" in late.output
    stopped = fleet.serving()
    assert stopped["gpu3"] == before["gpu3"]
    patient = fleet.deploy(wait_timeout=60, rollout={"batch": 2}, **slow)
    assert patient.code == 0, patient.output
    assert table(patient.output) == dict.fromkeys(HOSTS, "deployed")
    assert fleet.serving()["gpu1"] == stopped["gpu1"], "another wait_timeout restarted a server"


def test_two_people_at_once(fleet):
    """One run after the other changes a host, and the last one decides. No run ends with a mixture of both."""
    two_hosts = ("-l", "gpu1,gpu2")
    one = fleet.begin(*two_hosts, context_size=4096)
    two = fleet.begin(*two_hosts, context_size=8192)
    first, second = one.wait(), two.wait()

    assert "Traceback" not in first.output + second.output
    for run in (first, second):
        assert run.code == 0 or "is being changed" in run.output or "holds" in run.output, run.output
    contexts = fleet.contexts()
    assert {contexts["gpu1"], contexts["gpu2"]} <= {4096, 8192}
    settled = fleet.deploy(context_size=8192)
    assert settled.code == 0, settled.output
    assert fleet.contexts() == dict.fromkeys(HOSTS, 8192)


def test_a_wrong_rollout_option_is_refused(fleet):
    wrong = fleet.deploy(context_size=4096, rollout={"canary": 1, "batches": 2})
    assert wrong.code != 0
    assert "llamacpp_rollout: unknown key batches; the keys are canary, batch, pause." in wrong.output


def test_an_instance_that_is_not_declared_is_listed_and_only_removed_on_demand(fleet):
    """deploy.yml, with an inventory that declares all instances of the hosts."""
    gpu1 = fleet.hosts["gpu1"]

    def deploy(*words, **variables):
        return fleet.run_playbook("deploy", "-l", "gpu1", *words, llamacpp_instances=[EXTRA], **variables)

    listed = deploy()
    assert listed.code == 0, listed.output
    assert f"Not declared for gpu1, and not changed: {NAME}." in re.sub(r"\s+", " ", listed.output)
    assert gpu1.check_output("pgrep -cx llama-server") == "2"

    for variables in ({"instance": "4404"}, {"llamacpp_instances": []}):
        wanted = {"llamacpp_instances": [EXTRA], "llamacpp_prune": True, **variables}
        refused = fleet.run_playbook("deploy", "-l", "gpu1", **wanted)
        assert refused.code != 0 and "llamacpp_prune removes every instance" in refused.output, refused.output
    assert gpu1.check_output("pgrep -cx llama-server") == "2"

    preview = deploy("--check", llamacpp_prune=True)
    assert (preview.code, preview.changed) == (0, 1), preview.output
    assert gpu1.file(f"{HOME}/{NAME}").exists
    done = deploy(llamacpp_prune=True)
    assert (done.code, done.changed) == (0, 1), done.output
    assert not gpu1.file(f"{HOME}/{NAME}").exists
    assert "--port 4404" in gpu1.check_output("pgrep -ax llama-server")
    again = deploy(llamacpp_prune=True)
    assert (again.code, again.changed) == (0, 0), again.output
