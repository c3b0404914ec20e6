# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The runner as a real process, with programs that stand in for the container and llama-server."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._host import runner

LIMIT = 15.0  # s; only ever reached by a failing test

PROGRAMS = Path(__file__).with_name("programs")

# The runner with its waiting times cut down, so that a test takes a second and not a minute.
DRIVER = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("runner", sys.argv[1])
runner = importlib.util.module_from_spec(spec)
sys.modules["runner"] = runner
spec.loader.exec_module(runner)
for name, value in (item.split("=") for item in sys.argv[3:]):
    setattr(runner, name, float(value))
sys.exit(runner.main([sys.argv[1], sys.argv[2]]))
"""
FAST = ["START_EVERY=0.05", "PROBE_EVERY=0.1", "PROBE_TIMEOUT=0.5", "SECOND_TERM=0.5"]
FAST += ["SLOTS_FIRST=0.05", "GRACE=2", "SWEEP_GRACE=0.2", "FAILED_START_PAUSE=0.2"]
BUSY = [{"id": 0, "is_processing": True, "id_task": 7, "params": {}, "next_token": [{"n_decoded": 5}]}]
IDLE = [{"id": 0, "is_processing": False}]


def until(true: Callable[[], Any], what: str) -> Any:
    """Wait for something to become true, and return it."""
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, ValueError, KeyError):
            value = true()
            if value:
                return value
        time.sleep(0.02)
    raise AssertionError(f"never came true: {what}")


class Instance:
    """A folder as the deployer leaves it, and the runner over it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.started: list[subprocess.Popen[str]] = []
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        (folder / "requests").touch()
        for name, program in (("llama-server", "llama_server.py"), ("container", "container.py")):
            path = folder / name
            path.write_text(f"#!{sys.executable} -IS\n" + (PROGRAMS / program).read_text())
            path.chmod(path.stat().st_mode | stat.S_IXUSR)
        self.behave(health=200, slots=IDLE, term="leave")
        self.launch: dict[str, Any] = {
            "id": "one",
            "argv": [str(folder / "container"), str(self.port), "$(id) %h 'x'"],
            "env": {"ONLY": "this", "PATH": os.defpath},
            "url": f"http://127.0.0.1:{self.port}",
            "api_key_file": None,
            "log": str(folder / "llama-server.log"),
            "drain_timeout": 10,
            "stop_timeout": 3,
            "stall_timeout": 30,
        }

    def behave(self, **behaviour: Any) -> None:
        path = self.folder / "behaviour"
        old = json.loads(path.read_text()) if path.exists() else {}
        # In place and in one piece, because the server has opened it once.
        with open(path, "r+b" if path.exists() else "wb", buffering=0) as file:
            file.write(json.dumps({**old, **behaviour}).encode().ljust(4096))

    def start(self, *constants: str, **environ: str) -> subprocess.Popen[str]:
        (self.folder / "instance.json").write_text(json.dumps({"launch": self.launch}))
        command = [sys.executable, "-I", "-c", DRIVER, runner.__file__, str(self.folder), *FAST, *constants]
        # Not a child's child of pytest alone: a session of its own, as under a manager.
        process = subprocess.Popen(
            command, env={"HOST": "leaks", **environ}, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        self.started.append(process)
        return process

    def running(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads((self.folder / "running.json").read_text())
        return value

    def ready(self, process: subprocess.Popen[str]) -> dict[str, Any]:
        until(lambda: self.running()["runner_pid"] == process.pid and self.running()["ready"], "ready")
        return self.running()

    def pids(self) -> list[int]:
        """The container's parent, its helper, the server."""
        return list(map(int, (self.folder / "pids").read_text().split()))

    def terms(self) -> int:
        """How often TERM came to the server."""
        return (self.folder / "requests").read_text().count("TERM")

    def log(self) -> str:
        return (self.folder / "llama-server.log").read_text()


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[Instance]:
    value = Instance(tmp_path)
    yield value
    for process in value.started:
        process.kill()
        process.communicate(timeout=LIMIT)
    with contextlib.suppress(OSError, ValueError):
        runner.send(value.pids(), signal.SIGKILL)


def gone(pids: list[int]) -> bool:
    return not any(map(runner.process, pids))


def ended(process: subprocess.Popen[str]) -> int:
    return process.wait(timeout=LIMIT)


def test_ready_only_after_loading_and_clean_stop(instance: Instance) -> None:
    instance.behave(health=503)
    process = instance.start()
    until(lambda: "/health" in (instance.folder / "requests").read_text(), "asked for its health")
    until(lambda: instance.running()["server_pid"], "server pid")
    assert instance.running()["ready"] is None
    instance.behave(health=200)
    state = instance.ready(process)
    pids = instance.pids()
    assert state["server_pid"] == pids[2]
    assert state["launch"] == "one"
    found = runner.process(process.pid)
    assert found is not None and state["runner_start"] == found.start
    process.terminate()
    assert ended(process) == 0
    assert gone(pids)
    assert instance.running()["exit"]["status"] == 0
    assert "listening \u00fc $(id) %h 'x'\n" in instance.log()


def test_the_state_has_the_files_that_the_server_was_started_with(instance: Instance, tmp_path: Path) -> None:
    key, gone, folder = tmp_path / "key", str(tmp_path / "gone"), str(tmp_path)
    key.write_text("secret")
    instance.launch["files"] = [str(key), gone, folder]
    instance.ready(instance.start())
    seen = key.stat()
    assert instance.running()["files"] == {str(key): [seen.st_ino, 6, seen.st_mtime_ns], gone: None, folder: None}


def test_a_file_that_appears_during_the_start_counts_as_there_from_the_start(
    instance: Instance, tmp_path: Path
) -> None:
    late = tmp_path / "model"
    instance.launch["files"] = [str(late)]
    instance.behave(health=503)
    process = instance.start()
    until(lambda: instance.running()["server_pid"], "a server that loads")
    late.write_text("late")
    assert instance.running()["files"] == {str(late): None}
    instance.behave(health=200)
    seen = late.stat()
    assert instance.ready(process)["files"] == {str(late): [seen.st_ino, 4, seen.st_mtime_ns]}


def test_environment_is_exactly_the_launch(instance: Instance) -> None:
    process = instance.start()
    instance.ready(process)
    environ = Path(f"/proc/{instance.pids()[0]}/environ").read_text().split("\0")
    assert {word.partition("=")[0] for word in environ if word} == {"ONLY", "PATH"}
    assert os.getsid(instance.pids()[0]) == instance.pids()[0]


def test_drain_waits_for_a_busy_slot(instance: Instance) -> None:
    instance.behave(slots=BUSY)
    process = instance.start()
    instance.ready(process)
    process.terminate()
    asked = (instance.folder / "requests").read_text().count("/slots")
    until(lambda: (instance.folder / "requests").read_text().count("/slots") > asked + 2, "draining")
    assert instance.terms() == 0
    instance.behave(slots=IDLE)
    assert ended(process) == 0
    assert instance.terms() == 1


def stream(instance: Instance) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    """A request in flight."""
    client = http.client.HTTPConnection("127.0.0.1", instance.port, timeout=LIMIT)
    client.request("GET", "/stream")
    answer = client.getresponse()
    assert answer.read(5) == b"token"
    return client, answer


def refused(instance: Instance) -> bool:
    try:
        socket.create_connection(("127.0.0.1", instance.port), timeout=LIMIT).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="this Python was built on an old kernel")
def test_a_drain_completes_requests_and_refuses_new_clients(instance: Instance) -> None:
    instance.behave(slots=BUSY)
    process = instance.start()
    instance.ready(process)
    client, answer = stream(instance)
    process.terminate()
    until(lambda: refused(instance), "new clients are refused")
    time.sleep(0.2)
    assert refused(instance)
    assert instance.terms() == 0
    instance.behave(slots=IDLE)
    assert answer.read().endswith(b"token done")
    assert ended(process) == 0
    assert instance.running()["cut"] == 0
    client.close()


def test_a_drain_without_slots_waits_for_the_connections(instance: Instance) -> None:
    instance.behave(slots=BUSY)
    process = instance.start()
    instance.ready(process)
    client, answer = stream(instance)
    instance.behave(slots=501)
    answer.close()
    client.close()
    process.terminate()
    assert ended(process) == 0
    assert instance.running()["cut"] == 0


def test_cut_requests_are_counted_and_the_drain_limit_is_the_latest(instance: Instance) -> None:
    instance.launch.update(drain_timeout=1000)
    instance.behave(slots=BUSY)
    process = instance.start()
    instance.ready(process)
    client, dummy = stream(instance)
    instance.launch.update(drain_timeout=0.3)
    (instance.folder / "instance.json").write_text(json.dumps({"launch": instance.launch}))
    process.terminate()
    assert ended(process) == 0
    assert instance.running()["cut"] == 1
    assert "stopping with 1 request(s) unfinished after" in instance.log()
    client.close()


@pytest.mark.parametrize(
    ("slots", "sleeping", "working"),
    [
        ((200, BUSY), False, 1),
        ((200, IDLE), False, 0),
        ((200, {"error": "x"}), False, None),
        ((200, ["x"]), False, 0),
        ((501, {}), False, None),
        ((None, {}), False, None),  # in the middle of a long batch, or gone
        ((200, BUSY), True, 0),  # asking for the slots would wake it
    ],
)
def test_requests_in_flight(slots: Any, sleeping: bool, working: int | None, tmp_path: Path) -> None:
    answers = {"/slots": slots, "/props": (200, {"is_sleeping": sleeping})}

    class Connection(runner.Connection):
        def get(self, path: str) -> tuple[int | None, bytes]:
            return answers[path][0], json.dumps(answers[path][1]).encode()

    server = runner.Server("one", ["x", "--sleep-idle-seconds", "9"], {}, "http://127.0.0.1:1")
    assert runner.Runner(str(tmp_path), server).requests(Connection(server.url, None, 1)) == working


def test_a_second_term_ends_the_drain_and_status_1_of_a_second_term_is_clean(instance: Instance) -> None:
    instance.behave(slots=BUSY, term="leave at the second")
    process = instance.start()
    instance.ready(process)
    process.terminate()
    asked = (instance.folder / "requests").read_text().count("/slots")
    until(lambda: (instance.folder / "requests").read_text().count("/slots") > asked + 2, "draining")
    process.terminate()
    assert ended(process) == 0
    assert instance.running()["exit"]["status"] == 1
    assert instance.terms() == 2
    assert "stopping with 1 request(s) unfinished" in instance.log()


def test_drain_is_bounded_and_what_ignores_term_is_killed(instance: Instance) -> None:
    instance.launch.update(drain_timeout=0.5, stop_timeout=1)
    instance.behave(slots=BUSY, term="ignore")
    process = instance.start()
    instance.ready(process)
    pids = instance.pids()
    process.terminate()
    assert ended(process) == 137
    assert gone(pids)


def test_term_while_loading(instance: Instance) -> None:
    instance.behave(health=503)
    process = instance.start()
    until(lambda: instance.running()["server_pid"], "server pid")
    process.terminate()
    assert ended(process) == 0


@pytest.mark.parametrize(("victim", "status"), [(0, 137), (2, 137)], ids=["container parent", "server"])
def test_killed_from_outside(instance: Instance, victim: int, status: int) -> None:
    process = instance.start()
    instance.ready(process)
    pids = instance.pids()
    os.kill(pids[victim], signal.SIGKILL)
    assert ended(process) == status
    assert gone(pids)  # also the helper, which is no descendant of anything that lives
    assert instance.running()["exit"]["status"] == status


def test_exit_status_is_the_servers(instance: Instance) -> None:
    instance.behave(die=3)
    process = instance.start()
    assert ended(process) == 3
    assert instance.running()["exit"]["status"] == 3
    assert instance.running()["ready"] is None
    assert "error: invalid argument\n" in instance.log()
    assert "ended with exit status 3" in instance.log()


def test_a_failed_start_pauses_unless_asked_to_stop(instance: Instance) -> None:
    instance.behave(die=3)
    process = instance.start("FAILED_START_PAUSE=1000")
    until(lambda: instance.running()["exit"], "the exit is known at once")
    assert process.poll() is None
    process.terminate()
    assert ended(process) == 3


def test_the_container_command_does_not_exist(instance: Instance) -> None:
    instance.launch["argv"] = ["/nonexistent/apptainer"]
    assert ended(instance.start()) == 127
    assert "/nonexistent/apptainer cannot be started: No such file" in instance.log()


def test_the_next_runner_ends_the_container_of_a_killed_one(instance: Instance) -> None:
    process = instance.start()
    instance.ready(process)
    old = instance.pids()
    os.kill(process.pid, signal.SIGKILL)
    assert ended(process) == -signal.SIGKILL
    assert all(map(runner.process, old))
    process = instance.start()
    state = instance.ready(process)
    assert gone(old)
    assert state["server_pid"] == instance.pids()[2]
    assert all(map(runner.process, instance.pids()))


def test_a_live_runner_whose_manager_died_is_replaced(instance: Instance) -> None:
    first = instance.start()
    instance.ready(first)
    old = instance.pids()
    second = instance.start()
    assert ended(first) == 0
    instance.ready(second)
    assert gone(old)
    assert "ending a runner whose manager is gone" in instance.log()


def test_a_port_in_use_is_not_taken_for_our_server(instance: Instance) -> None:
    neighbour = Instance(instance.folder / "neighbour")
    process = neighbour.start()
    instance.started.append(process)
    neighbour.ready(process)
    instance.launch["url"] = neighbour.launch["url"]
    mine = instance.start()
    assert ended(mine) == 1
    assert instance.running()["ready"] is None
    assert "another process listens at http://127.0.0.1:" in instance.log()
    process.terminate()
    assert ended(process) == 0


@pytest.mark.parametrize("other", ["process", "boot"])
def test_a_reused_pid_in_running_json_is_not_touched(instance: Instance, other: str) -> None:
    bystander = subprocess.Popen(["sleep", "1000"])
    try:
        found = runner.process(bystander.pid)
        assert found is not None
        state = {"runner_pid": bystander.pid, "runner_start": found.start, "boot": "before"}
        if other == "process":
            state.update(runner_start=found.start - 1, boot=runner.boot_id())
        (instance.folder / "running.json").write_text(json.dumps(state))
        instance.ready(instance.start())
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_state_file_elsewhere(instance: Instance) -> None:
    (instance.folder / "state").mkdir()
    instance.launch["state_file"] = str(instance.folder / "state/running.json")
    instance.behave(die=3)
    assert ended(instance.start()) == 3
    assert '"status": 3' in (instance.folder / "state/running.json").read_text()
    assert not (instance.folder / "running.json").exists()


def test_log_is_appended_and_rotated(instance: Instance) -> None:
    instance.behave(die=3)
    (instance.folder / "llama-server.log").write_text("the crash before\n")
    assert ended(instance.start()) == 3
    assert instance.log().startswith("the crash before\n")
    assert instance.log().count("starting one") == 1
    assert ended(instance.start("LOG_BYTES=10")) == 3
    assert (instance.folder / "llama-server.log.1").exists()


def test_old_logs_are_kept_and_no_line_is_lost_or_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "LOG_BYTES", 100)
    log = runner.Log(str(tmp_path / "log"))
    for number in range(100):
        log.write(b"line %03d of this\n" % number)
    names = ["log", *(f"log.{number}" for number in range(1, runner.LOG_FILES + 1))]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    kept = b"".join((tmp_path / name).read_bytes() for name in reversed(names)).splitlines()
    assert kept == [b"line %03d of this" % number for number in range(100 - len(kept), 100)]
    assert all((tmp_path / name).stat().st_size <= 100 for name in names)


@pytest.mark.parametrize(
    ("output", "written"),
    [
        (b"one\ntwo", b"one\ntwo\n"),
        (b"\xff\xfe no text\r\n\n", b"\xff\xfe no text\r\n\n"),
        (b"", b""),
    ],
)
def test_the_output_is_copied_unchanged(output: bytes, written: bytes, tmp_path: Path) -> None:
    assert copied(output, tmp_path) == written


def test_a_line_without_an_end_is_copied_in_parts(tmp_path: Path) -> None:
    lines = copied(b"." * 400_000, tmp_path).split(b"\n")
    assert b"".join(lines) == b"." * 400_000
    assert lines.pop() == b""
    assert max(map(len, lines)) <= 2 * runner.LONGEST_LINE


def copied(output: bytes, tmp_path: Path) -> bytes:
    """The log of a server with this output."""
    (tmp_path / "output").write_bytes(output)
    child = subprocess.Popen(["cat", tmp_path / "output"], stdout=subprocess.PIPE)
    log = runner.Log(str(tmp_path / "log"))
    assert child.stdout
    with child.stdout:
        log.follow(child.stdout)
        assert log.reader
        log.reader.join(LIMIT)
    child.wait()
    return (tmp_path / "log").read_bytes()


def test_a_full_disk_loses_only_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    log = runner.Log("/dev/full")
    log.mark("lost")
    monkeypatch.setattr(runner, "LOG_BYTES", 1)
    monkeypatch.setattr(runner.Log, "rotate", lambda self, path: os.stat("/nonexistent"))
    log.mark("lost as well")


def test_without_a_log_file_everything_goes_to_stderr(instance: Instance) -> None:
    instance.launch["log"] = None
    instance.behave(die=3)
    process = instance.start()
    dummy, words = process.communicate(timeout=LIMIT)
    assert "llamacpp runner: ended with exit status 3" in words


def test_api_key_and_stall(instance: Instance) -> None:
    (instance.folder / "keys").write_text("# comment\n\n  secret  \nother\n")
    instance.launch.update(api_key_file=str(instance.folder / "keys"), stall_timeout=0.7)
    instance.behave(slots=BUSY)
    process = instance.start()
    instance.ready(process)
    pids = instance.pids()
    assert ended(process) == 1  # the server exited with 0 on TERM, but no stop was requested
    assert gone(pids)
    assert "no busy slot has moved" in instance.log()
    assert "/slots Bearer secret\n" in (instance.folder / "requests").read_text()
    assert "/health None\n" in (instance.folder / "requests").read_text()


def decoded(number: int) -> tuple[int, Any]:
    return 200, [{**BUSY[0], "next_token": [{"n_decoded": number}]}]


SILENT: tuple[None, None] = (None, None)
HEALTHY = (200, {"status": "ok"})


@pytest.mark.parametrize(
    ("looks", "verdict"),
    [
        # (seconds, answer of /health, answer of /slots); limits: 30 s of silence, 100 s of standstill
        ([(90, HEALTHY, (200, IDLE)), (180, HEALTHY, (200, IDLE))], ""),
        ([(90, HEALTHY, (501, None)), (180, HEALTHY, (401, None))], ""),
        ([(90, HEALTHY, decoded(1)), (180, HEALTHY, decoded(2)), (270, HEALTHY, decoded(3))], ""),
        ([(90, HEALTHY, decoded(1)), (180, HEALTHY, decoded(1))], ""),
        ([(90, HEALTHY, decoded(1)), (191, HEALTHY, decoded(1))], "no busy slot has moved for 101 s"),
        ([(90, HEALTHY, decoded(1)), (180, HEALTHY, (200, IDLE)), (191, HEALTHY, decoded(1))], ""),
        ([(90, HEALTHY, (200, IDLE)), (180, HEALTHY, SILENT)], ""),
        ([(90, HEALTHY, (200, IDLE)), (191, HEALTHY, SILENT)], "no busy slot has moved for 101 s"),
        ([(29, SILENT, SILENT)], ""),
        ([(31, SILENT, SILENT)], "/health has not answered 200 for 31 s (last: no answer)"),
        ([(10, HEALTHY, (200, IDLE)), (35, (500, None), SILENT)], ""),
        ([(10, HEALTHY, (200, IDLE)), (41, (500, None), SILENT)], "/health has not answered 200 for 31 s (last: 500)"),
    ],
)
def test_when_a_server_is_restarted(
    looks: list[Any], verdict: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = {"seconds": 0.0}
    answers: dict[str, Any] = {}
    monkeypatch.setattr(runner.time, "monotonic", lambda: now["seconds"])
    monkeypatch.setattr(runner, "get", lambda url, path, *rest: answers[path])
    monkeypatch.setattr(runner.signal, "pthread_sigmask", lambda *rest: None)
    server = runner.Server("one", ["x"], {}, "http://127.0.0.1:1", stall_timeout=100)
    watched = runner.Runner(str(tmp_path), server)
    fed: list[str] = []
    watched.notify = fed.append  # type: ignore[assignment]
    for seconds, health, slots in looks:
        now["seconds"] = seconds
        answers.update({"/health": health, "/slots": slots})
        fed.clear()
        trouble = watched.probe()
    assert verdict in trouble if verdict else trouble == ""
    assert fed == (["WATCHDOG=1"] if health == HEALTHY and not verdict else [])


def test_a_server_that_may_sleep_is_not_woken(instance: Instance) -> None:
    instance.launch["argv"] += ["--sleep_idle_seconds", "60"]
    instance.behave(props={"is_sleeping": True})
    process = instance.start()
    instance.ready(process)
    until(lambda: (instance.folder / "requests").read_text().count("/health") > 5, "probes")
    process.terminate()
    assert ended(process) == 0
    requests = (instance.folder / "requests").read_text()
    assert "/props" in requests
    assert "/slots" not in requests


def test_a_stopped_server_is_replaced(instance: Instance) -> None:
    process = instance.start("SILENCE_LIMIT=0.7")
    instance.ready(process)
    pids = instance.pids()
    os.kill(pids[2], signal.SIGSTOP)
    assert ended(process) == 137
    assert gone(pids)
    assert "/health has not answered 200" in instance.log()


def test_a_server_that_never_answers_is_ended(instance: Instance) -> None:
    instance.launch["argv"] = ["/bin/sleep", "1000"]
    assert ended(instance.start("START_SILENCE_LIMIT=0.5")) == 143
    assert "no answer at http://127.0.0.1:" in instance.log()


@pytest.mark.parametrize("abstract", [False, True])
def test_notifications(instance: Instance, abstract: bool) -> None:
    name = f"@llamacpp-test-{os.getpid()}" if abstract else str(instance.folder / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name[1:] if abstract else name)
        manager.settimeout(LIMIT)
        instance.behave(health=503)
        process = instance.start(NOTIFY_SOCKET=name, WATCHDOG_USEC="600000")
        while b"STATUS=loading the model" not in (word := manager.recv(4096)):
            assert b"READY=1" not in word
        assert b"EXTEND_TIMEOUT_USEC=" in word
        instance.behave(health=200)
        while b"READY=1" not in (word := manager.recv(4096)):
            assert b"EXTEND_TIMEOUT_USEC=" in word
        assert manager.recv(4096) == b"WATCHDOG=1"
        instance.behave(health=500)
        manager.settimeout(0.6)
        with pytest.raises(socket.timeout):
            manager.recv(4096)  # of a probe that was under way
            manager.recv(4096)
        manager.settimeout(LIMIT)
        instance.behave(health=200)
        assert manager.recv(4096) == b"WATCHDOG=1"
        process.terminate()
        while (word := manager.recv(4096)) == b"WATCHDOG=1":
            continue
        assert word == b"STOPPING=1"
        assert ended(process) == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "cannot be read"),
        ("{", "has no valid launch"),
        ("{}", "has no valid launch"),
        ('{"launch": {"id": "x", "argv": []}}', "has no valid launch"),
        ('{"launch": {"id": "x", "argv": ["a", 1], "env": {}, "url": ""}}', "have to be text"),
    ],
)
def test_a_broken_launch_is_refused(tmp_path: Path, text: str | None, words: str) -> None:
    if text is not None:
        (tmp_path / "instance.json").write_text(text)
    done = subprocess.run(
        [sys.executable, "-I", runner.__file__, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 78
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_helpers_for_others(instance: Instance) -> None:
    url = f"http://127.0.0.1:{instance.port}"
    assert runner.health(url, 0.5) is None
    process = instance.start()
    instance.ready(process)
    assert runner.health(url, 2) == 200
    assert runner.get(url, "/slots", 2) == (200, IDLE)
    instance.behave(health=503, slots=501)
    assert runner.health(url, 2) == 503
    assert runner.get(url, "/slots", 2) == (501, None)


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nKeep-Alive: timeout=5\r\n\r\n[{}]", (200, [{}])),
        (b"HTTP/1.1 503 Service Unavailable\r\nContent-Length:2\r\n\r\n{}", (503, None)),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nno!!", (200, None)),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n[]", (None, None)),
        (b"HTTP/1.1 200 OK\r\n\r\n[]", (200, [])),  # until the end of the connection
        (b"SSH-2.0-OpenSSH\r\n", (None, None)),
        (b"\x15\x03\x01", (None, None)),
        (b"", (None, None)),
    ],
)
def test_what_counts_as_an_answer(answer: bytes, found: tuple[int | None, Any]) -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        server.settimeout(LIMIT)
        asked = []

        def serve() -> None:
            client, dummy = server.accept()
            with client:
                asked.append(client.recv(65536))
                client.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        url = f"http://[::1]:{server.getsockname()[1]}"
        assert runner.get(url, "/slots", 5, "key") == found
        thread.join(LIMIT)
    request, *headers = asked[0].decode().strip().split("\r\n")
    assert request == "GET /slots HTTP/1.1"
    assert {f"Host: {url.removeprefix('http://')}", "Authorization: Bearer key"} <= set(headers)
