# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""An action that runs its module as a job on the host while there is something to bring, and shows how far it is.

Private to gpufleet.llamacpp; may change at any time.

The module is run first as any module is, told to stop where something has to be brought. So a run with nothing to bring
costs nothing more. Otherwise it is run again, asynchronously, and tells its progress in a file beside the job's. Both
are the files of the user that the module runs as, and are read with the same become.
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

from ._progress_line import Told, is_due, line, span, told

# What the module is told in its environment (module_utils/_artifact/progress.py).
FILE = "GPUFLEET_LLAMACPP_PROGRESS"
DEFER = "GPUFLEET_LLAMACPP_DEFER"
FOLDER = "gpufleet.llamacpp"  # in the folder that Ansible has for jobs
# s between two looks at the host: short at first, so that a short pull is not made longer.
PAUSES = (0.2, 0.5, 1.0, 2.0, 5.0)
# s for which a lost connection is tried again, and between two tries.
PATIENCE = 300.0
RETRY = 5.0
# s after which a host that says nothing is taken for one whose connection is lost: ssh itself waits for many minutes.
ANSWER = 30.0
# s after which a job of which no process and no result can be seen is believed dead; at first Python has to start.
DEAD = 15.0
UNSEEN = 60.0
# s after which Ansible ends a job (module_utils/_artifact/progress.py has it too).
LONGEST = 30 * 86400
# What async_wrapper and async_status add to a result that is the module's own.
OF_THE_JOB = ("ansible_job_id", "started", "finished", "results_file", "stderr", "stderr_lines")


@dataclass(frozen=True)
class Job:
    """A running module: Ansible's name for it, the absolute folder of its files, and the progress file's name there."""

    jid: str
    folder: str
    progress: str

    @property
    def files(self) -> tuple[str, str]:
        return f"{self.folder}/{self.progress}", f"{self.folder}/{self.jid}"

    def look(self, pid: int | None) -> str:
        """The command that shows the progress, the result, and whether the process is there; a line each."""
        progress, result = map(shlex.quote, self.files)
        alive = f"; kill -0 {pid} 2>/dev/null && echo alive" if pid else ""
        return f"cat {progress} 2>/dev/null; cat {result} 2>/dev/null; echo{alive}"

    def remove(self) -> str:
        """The command that removes what the job leaves."""
        progress, result = map(shlex.quote, self.files)
        return f"rm -f {progress} {progress}.* {result} {result}.tmp"


@dataclass(frozen=True)
class Seen:
    """What one look showed."""

    progress: Mapping[str, Any] | None = None
    ended: bool = False
    alive: bool = False


def read(shown: str) -> Seen:
    """What the command Job.look printed; other lines, as some hosts print at every login, are passed over."""
    progress, ended, alive = None, False, False
    for text in shown.splitlines():
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
            # As async_status does: only the placeholder of a job that goes on has "started".
            ended = "started" not in value or bool(value.get("finished"))
    return Seen(progress, ended, alive)


@dataclass
class Watch:
    """What is known of a job from look to look. Times in seconds, of a monotonic clock."""

    began: float
    pid: int | None = None
    alive_at: float | None = None
    phase_at: float = field(default=0.0)
    last: Told | None = None

    def note(self, seen: Seen, now: float) -> None:
        if seen.progress is None:
            return
        if seen.progress["pid"] != self.pid:
            self.pid, self.alive_at = seen.progress["pid"], now
        elif seen.alive:
            self.alive_at = now

    def is_dead(self, now: float) -> bool:
        return now - self.began > UNSEEN if self.alive_at is None else now - self.alive_at > DEAD


def pause(number: int, seen: Seen) -> float:
    """How long to wait before the next look, after ``number`` looks: no longer than the pull will take."""
    longest = PAUSES[min(number, len(PAUSES) - 1)]
    eta = seen.progress.get("eta") if seen.progress else None
    return longest if eta is None else min(longest, max(PAUSES[0], eta))


def in_time(step: Callable[[], dict[str, Any]], seconds: float) -> dict[str, Any]:
    """What ``step`` returns or raises; AnsibleConnectionFailure where it takes longer: it is left to itself then."""
    outcome: SimpleQueue[tuple[dict[str, Any], BaseException | None]] = SimpleQueue()

    def work() -> None:
        try:
            outcome.put((step(), None))
        except BaseException as failure:
            outcome.put(({}, failure))

    # Ansible keeps in the context which task it is at.
    Thread(target=copy_context().run, args=(work,), daemon=True).start()
    try:
        result, failure = outcome.get(timeout=seconds)
    except Empty:
        raise AnsibleConnectionFailure(f"The host did not answer for {span(seconds)}.") from None
    if failure is not None:
        raise failure
    return result


class PullAction(ActionBase):
    """The action of a module that brings a large file."""

    _supports_check_mode = True
    _supports_async = True

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """The module's own result, however it was run."""
        super().run(tmp, task_vars)
        task_vars = task_vars or {}
        self._host = str(task_vars.get("inventory_hostname", ""))
        if self._task.check_mode or self._task.async_val or not self._can_detach():
            wrap = bool(self._task.async_val) and not getattr(self._connection, "has_native_async", False)
            return dict(self._execute_module(task_vars=task_vars, wrap_async=wrap))
        progress = f"{secrets.token_hex(8)}.progress"
        first = self._told({FILE: f"{self._async_dir()}/{progress}", DEFER: "1"}, task_vars)
        if not first.get("deferred"):
            return first
        folder = self._connection._shell.tmpdir or self._make_tmp_path()
        started = self._start({FILE: f"{self._async_dir()}/{progress}"}, task_vars)
        if "ansible_job_id" not in started:
            # What keeps Ansible from starting a job, such as a home that may not be written to, need not keep the
            # module from its work.
            return dict(self._execute_module(task_vars=task_vars))
        job = Job(started["ansible_job_id"], started["results_file"].rpartition("/")[0], progress)
        result = self._finish(job, task_vars)
        # async_wrapper removes it too, seconds later; until then the module's options, secrets too, would lie there.
        if not constants.DEFAULT_KEEP_REMOTE_FILES:
            self._patiently(lambda: {"removed": self._remove_tmp_path(folder, force=True)})
        return result

    def _can_detach(self) -> bool:
        """Whether Ansible's jobs of a POSIX host work over this connection."""
        connection = self._connection
        others = ("has_native_async", "always_pipeline_modules", "_remote_is_local")
        windows = getattr(connection._shell, "_IS_WINDOWS", False)
        return not windows and not any(getattr(connection, other, False) for other in others)

    def _async_dir(self) -> str:
        return f"{self.get_shell_option('async_dir', default='~/.ansible_async')}/{FOLDER}"

    def _told(self, words: dict[str, str], task_vars: dict[str, Any], wrap_async: bool = False) -> dict[str, Any]:
        """Run the module with more variables in its environment; its result."""
        environment = self._task.environment
        try:
            self._task.environment = [*(environment or []), words]
            return dict(self._execute_module(task_vars=task_vars, wrap_async=wrap_async))
        finally:
            self._task.environment = environment

    def _start(self, words: dict[str, str], task_vars: dict[str, Any]) -> dict[str, Any]:
        """Start the module as a job; what async_wrapper says."""
        shell = self._connection._shell
        limit, folder = self._task.async_val, shell.get_option("async_dir")
        own = self._async_dir()
        try:
            self._task.async_val = LONGEST
            shell.set_option("async_dir", own)
            return self._told(words, task_vars, wrap_async=True)
        finally:
            self._task.async_val = limit
            shell.set_option("async_dir", folder)

    def _finish(self, job: Job, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Wait for the job and show how far it is; its result. Removes its files where it has ended."""
        if self._wait(job):
            args = {"jid": job.jid, "mode": "status", "_async_dir": job.folder}
            ask = partial(self._execute_module, "ansible.legacy.async_status", module_args=args, task_vars=task_vars)
            result = self._patiently(ask)
        else:
            result = {}
        self._patiently(partial(self._command, job.remove()))
        return _cleaned(result) if _is_of_module(result) else _killed(result)

    def _wait(self, job: Job) -> bool:
        """Whether there is a result in the end; False where the job is no more."""
        watch = Watch(time.monotonic())
        seen = Seen()
        number = 0
        while True:
            time.sleep(pause(number, seen))
            number += 1
            shown = self._patiently(partial(self._command, job.look(watch.pid)))
            seen, now = read(shown["stdout"]), time.monotonic()
            watch.note(seen, now)
            if seen.ended:
                return True
            if watch.is_dead(now):
                return False
            if seen.progress:
                self._show(watch, seen.progress, now)

    def _show(self, watch: Watch, progress: Mapping[str, Any], now: float) -> None:
        if watch.last is None or progress["phase"] != watch.last.phase:
            watch.phase_at = now
        if is_due(watch.last, progress, now):
            watch.last = told(progress, now)
            self._say(line(self._host, progress, now - watch.phase_at, self._display.columns))

    def _command(self, command: str) -> dict[str, Any]:
        """Run a command of which the answer comes at once, if there is a connection at all."""
        return in_time(partial(self._low_level_execute_command, command), ANSWER)

    def _patiently(self, step: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What ``step`` returns, tried again for a while where the connection is lost."""
        lost: float | None = None
        while True:
            try:
                return step()
            except AnsibleConnectionFailure as failure:
                now = time.monotonic()
                if lost is None:
                    lost = now
                    self._say(f"{self._host}: no connection; the pull goes on there. Trying again.")
                if now - lost > PATIENCE:
                    raise AnsibleConnectionFailure(
                        f"There has been no connection for {span(now - lost)}. The pull goes on on the host by itself. "
                        f"Run this again when the host can be reached: what has come by then is not fetched again."
                    ) from failure
                with suppress(Exception):  # a connection that cannot be reset is tried as it is
                    self._connection.reset()
                time.sleep(RETRY)

    def _say(self, text: str) -> None:
        """Show a line on stderr, so that what callbacks print on stdout, such as JSON, stays whole."""
        if not self._task.no_log and self._display.verbosity >= 0:
            self._display.display(text, stderr=True)


def _cleaned(result: Mapping[str, Any]) -> dict[str, Any]:
    """The module's own result, without what the job added."""
    return {key: value for key, value in result.items() if key not in OF_THE_JOB}


def _is_of_module(result: Mapping[str, Any]) -> bool:
    """Whether a module ended in its own words; async_wrapper has other keys for one that was killed."""
    return bool(result) and not (result.get("failed") and {"cmd", "msg"} <= set(result))


def _killed(result: Mapping[str, Any]) -> dict[str, Any]:
    said = [str(result[key]).strip() for key in ("data", "outdata", "stderr") if result.get(key)]
    return {
        "failed": True,
        "changed": False,
        "msg": "The module ended on the host without a result: something killed it, or the host was restarted. What it "
        "had fetched is kept, and the next run goes on from there." + (f" It said: {'; '.join(said)}" if said else ""),
    }
