# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""An action that runs its module as a background job on the host if there is something to fetch, and shows progress.

Private to gpufleet.llamacpp; may change at any time.

The action runs the module once in the normal way, with DEFER set: the module returns DEFERRED if it has to fetch
something. So a run with nothing to fetch costs nothing more. Otherwise the action runs the module again as an async
job, which writes its progress to a file next to its result. Both files belong to the user that the module runs as, so
the action reads them with the same become.
"""

from __future__ import annotations

import json
import secrets
import shlex
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

from ansible import constants
from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase

from ..module_utils._fetch.progress import ABANDONED_SECONDS, DEFER, FILE, LONGEST_SECONDS
from ._progress_line import Shown, is_due, line, shown, span

FOLDER = "gpufleet.llamacpp"  # below Ansible's folder for async jobs
# Seconds between two polls of the job: short at first, so that a short fetch does not take longer.
PAUSES = (0.2, 0.5, 1.0, 2.0, 5.0)
# Seconds to retry after the connection is lost, and between two tries. The module removes the files of a job that
# ended ABANDONED_SECONDS ago.
RETRY_LIMIT = ABANDONED_SECONDS / 2
RETRY_PAUSE = 5.0
# Seconds to wait for the answer to a poll. ssh itself waits for many minutes.
ANSWER_TIMEOUT = 30.0
# Seconds until a job without a process and without a result counts as dead, and the same before its process was ever
# seen: Python has to start first.
DEAD = 15.0
NEVER_SEEN = 60.0
# Keys that async_wrapper and async_status add to the module's own result.
JOB_KEYS = ("ansible_job_id", "started", "finished", "results_file", "stderr", "stderr_lines")


@dataclass(frozen=True)
class Job:
    """A running module: its job id, the absolute folder of its files, and the name of its progress file there."""

    jid: str
    folder: str
    progress: str

    @property
    def files(self) -> tuple[str, str]:
        return f"{self.folder}/{self.progress}", f"{self.folder}/{self.jid}"

    def poll(self, pid: int | None) -> str:
        """The command that prints the progress, the result, and whether the process is alive, a line each."""
        progress, result = map(shlex.quote, self.files)
        alive = f"; kill -0 {pid} 2>/dev/null && echo alive" if pid else ""
        return f"cat {progress} 2>/dev/null; cat {result} 2>/dev/null; echo{alive}"

    def remove(self) -> str:
        """The command that removes the files of the job."""
        progress, result = map(shlex.quote, self.files)
        return f"rm -f {progress} {progress}.* {result} {result}.tmp"


@dataclass(frozen=True)
class Poll:
    """What one poll found."""

    progress: Mapping[str, Any] | None = None
    ended: bool = False
    alive: bool = False


def read(output: str) -> Poll:
    """The output of the command ``Job.poll``. Other lines, such as a banner at login, are ignored."""
    progress, ended, alive = None, False, False
    for text in output.splitlines():
        alive = alive or text.strip() == "alive"
        try:
            value = json.loads(text)
        except ValueError:
            continue
        if not isinstance(value, dict):
            continue
        if "phase" in value and "pid" in value:
            progress = value
        else:
            # As in async_status: only the placeholder of a running job has "started".
            ended = "started" not in value or bool(value.get("finished"))
    return Poll(progress, ended, alive)


@dataclass
class Watch:
    """What is known about a job from poll to poll. Times in seconds of a monotonic clock."""

    began: float
    pid: int | None = None
    alive_at: float | None = None
    phase_at: float = field(default=0.0)
    last: Shown | None = None

    def note(self, poll: Poll, now: float) -> None:
        if poll.progress is None:
            return
        if poll.progress["pid"] != self.pid:
            self.pid, self.alive_at = poll.progress["pid"], now
        elif poll.alive:
            self.alive_at = now

    def is_dead(self, now: float) -> bool:
        return now - self.began > NEVER_SEEN if self.alive_at is None else now - self.alive_at > DEAD


def pause(number: int, poll: Poll) -> float:
    """Seconds to wait before the next poll, after ``number`` polls: at most until the fetch will be done."""
    longest = PAUSES[min(number, len(PAUSES) - 1)]
    eta = poll.progress.get("eta") if poll.progress else None
    return longest if eta is None else min(longest, max(PAUSES[0], eta))


def in_time(step: Callable[[], dict[str, Any]], seconds: float) -> dict[str, Any]:
    """Run ``step`` in a thread. Returns or raises what it does; raises AnsibleConnectionFailure after ``seconds``."""
    outcome: SimpleQueue[tuple[dict[str, Any], BaseException | None]] = SimpleQueue()

    def work() -> None:
        try:
            outcome.put((step(), None))
        except BaseException as failure:
            outcome.put(({}, failure))

    # Ansible keeps the current task in a context variable.
    Thread(target=copy_context().run, args=(work,), daemon=True).start()
    try:
        result, failure = outcome.get(timeout=seconds)
    except Empty:
        raise AnsibleConnectionFailure(f"The host did not answer for {span(seconds)}.") from None
    if failure is not None:
        raise failure
    return result


class FetchAction(ActionBase):
    """The action of a module that fetches large files.

    Private API of ansible-core in use: ``_task.async_val``, ``_task.environment`` and the shell's option ``async_dir``
    are set for one call and restored; ``_connection._shell.tmpdir``; ``wrap_async`` of ``_execute_module``; the keys
    that async_wrapper and async_status add to a result. tests/unit/plugin_utils/test_progress_run.py runs it all.
    """

    _supports_check_mode = True
    _supports_async = True

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the module; return its own result."""
        super().run(tmp, task_vars)
        task_vars = task_vars or {}
        self._host = str(task_vars.get("inventory_hostname", ""))
        if self._task.check_mode or self._task.async_val or not self._can_detach():
            wrap = bool(self._task.async_val) and not getattr(self._connection, "has_native_async", False)
            return dict(self._execute_module(task_vars=task_vars, wrap_async=wrap))
        progress = f"{secrets.token_hex(8)}.progress"
        first = self._run_with({FILE: f"{self._async_dir()}/{progress}", DEFER: "1"}, task_vars)
        if not first.get("deferred"):
            return first
        folder = self._connection._shell.tmpdir or self._make_tmp_path()
        started = self._start({FILE: f"{self._async_dir()}/{progress}"}, task_vars)
        if "ansible_job_id" not in started:
            # Ansible cannot start a job, for example because the home is not writable. The module itself may work.
            return dict(self._execute_module(task_vars=task_vars))
        job = Job(started["ansible_job_id"], started["results_file"].rpartition("/")[0], progress)
        result = self._finish(job, task_vars)
        # async_wrapper removes the folder too, but seconds later. It holds the module's options, with any secrets.
        if not constants.DEFAULT_KEEP_REMOTE_FILES:
            self._retry(lambda: {"removed": self._remove_tmp_path(folder, force=True)})
        return result

    def _can_detach(self) -> bool:
        """Whether this connection supports the async jobs of a POSIX host."""
        connection = self._connection
        others = ("has_native_async", "always_pipeline_modules", "_remote_is_local")
        windows = getattr(connection._shell, "_IS_WINDOWS", False)
        return not windows and not any(getattr(connection, other, False) for other in others)

    def _async_dir(self) -> str:
        return f"{self.get_shell_option('async_dir', default='~/.ansible_async')}/{FOLDER}"

    def _run_with(
        self, variables: dict[str, str], task_vars: dict[str, Any], wrap_async: bool = False
    ) -> dict[str, Any]:
        """Run the module with more environment variables; return its result."""
        environment = self._task.environment
        try:
            self._task.environment = [*(environment or []), variables]
            return dict(self._execute_module(task_vars=task_vars, wrap_async=wrap_async))
        finally:
            self._task.environment = environment

    def _start(self, variables: dict[str, str], task_vars: dict[str, Any]) -> dict[str, Any]:
        """Start the module as a job; return the answer of async_wrapper."""
        shell = self._connection._shell
        limit, folder = self._task.async_val, shell.get_option("async_dir")
        own = self._async_dir()
        try:
            self._task.async_val = LONGEST_SECONDS
            shell.set_option("async_dir", own)
            return self._run_with(variables, task_vars, wrap_async=True)
        finally:
            self._task.async_val = limit
            shell.set_option("async_dir", folder)

    def _finish(self, job: Job, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Wait for the job, show its progress, and remove its files. Returns the result."""
        if self._wait(job):
            args = {"jid": job.jid, "mode": "status", "_async_dir": job.folder}
            ask = partial(self._execute_module, "ansible.legacy.async_status", module_args=args, task_vars=task_vars)
            result = self._retry(ask)
        else:
            result = {}
        self._retry(partial(self._command, job.remove()))
        return _cleaned(result) if _is_of_module(result) else _killed(result)

    def _wait(self, job: Job) -> bool:
        """Wait until the job ends. Whether it has a result: a dead job has none."""
        watch = Watch(time.monotonic())
        poll = Poll()
        number = 0
        while True:
            time.sleep(pause(number, poll))
            number += 1
            answer = self._retry(partial(self._command, job.poll(watch.pid)))
            poll, now = read(answer["stdout"]), time.monotonic()
            watch.note(poll, now)
            if poll.ended:
                return True
            if watch.is_dead(now):
                return False
            if poll.progress:
                self._show(watch, poll.progress, now)

    def _show(self, watch: Watch, progress: Mapping[str, Any], now: float) -> None:
        if watch.last is None or progress["phase"] != watch.last.phase:
            watch.phase_at = now
        if is_due(watch.last, progress, now):
            watch.last = shown(progress, now)
            self._print(line(self._host, progress, now - watch.phase_at, self._display.columns))

    def _command(self, command: str) -> dict[str, Any]:
        """Run a command that answers at once if there is a connection."""
        return in_time(partial(self._low_level_execute_command, command), ANSWER_TIMEOUT)

    def _retry(self, step: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return what ``step`` returns; retry it for RETRY_LIMIT if the connection is lost."""
        lost: float | None = None
        while True:
            try:
                return step()
            except AnsibleConnectionFailure as failure:
                now = time.monotonic()
                if lost is None:
                    lost = now
                    self._print(f"{self._host}: connection lost. The fetch continues on the host. Retrying.")
                if now - lost > RETRY_LIMIT:
                    raise AnsibleConnectionFailure(
                        f"No connection for {span(now - lost)}. The fetch continues on the host. Run this again when "
                        f"the host is reachable: what it has by then is not fetched again."
                    ) from failure
                with suppress(Exception):  # without a reset, the next try uses the connection as it is
                    self._connection.reset()
                time.sleep(RETRY_PAUSE)

    def _print(self, text: str) -> None:
        """Print a line to stderr: on stdout it would break the output of callbacks, such as JSON."""
        if not self._task.no_log and self._display.verbosity >= 0:
            self._display.display(text, stderr=True)


def _cleaned(result: Mapping[str, Any]) -> dict[str, Any]:
    """The module's own result, without the keys of the job."""
    return {key: value for key, value in result.items() if key not in JOB_KEYS}


def _is_of_module(result: Mapping[str, Any]) -> bool:
    """Whether the module itself returned this; for a killed module, async_wrapper returns other keys."""
    return bool(result) and not (result.get("failed") and {"cmd", "msg"} <= set(result))


def _killed(result: Mapping[str, Any]) -> dict[str, Any]:
    output = [str(result[key]).strip() for key in ("data", "outdata", "stderr") if result.get(key)]
    return {
        "failed": True,
        "changed": False,
        "msg": "The module ended on the host without a result: it was killed, or the host was restarted. What it "
        "fetched is kept; run this again to continue." + (f" Its output: {'; '.join(output)}" if output else ""),
    }
