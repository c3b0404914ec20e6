# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The runner: the one process between a manager and the container of one llama-server.

Private to gpufleet.llamacpp; may change at any time.

The manager calls ``python3 -IS <instance>/runner.py <instance>``. What to start is the key ``launch`` of
``instance.json`` there; what is going on is in ``running.json``. A copy of this file lies beside every instance and
works without Ansible, so it imports the standard library alone and nothing of the collection.

A manager knows when a process exits. What it cannot know about llama-server, this program does: it is ready only when
``/health`` answers 200 (it listens, and answers 503, from its first second); it hangs when ``/health`` is silent or its
busy slots stand still; TERM cuts the requests in flight, so its door is shut and they are waited for first; a killed
container parent leaves its FUSE process behind.

At a change nobody is served until this program has started the container, and while the server loads it has to be out
of its way. So it does without http.client and logging, whose import takes longer than all the rest together.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import IO, Any, NamedTuple

RECORD, STATE = "instance.json", "running.json"  # in the folder of the instance
EXIT_CONFIG = 78  # EX_CONFIG of sysexits.h: starting again cannot help, and the managers are told not to
LOG_BYTES, LOG_FILES = 20 * 1024 * 1024, 5
APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT
START_EVERY = 0.5  # s between two looks at a server that is loading
PROBE_EVERY = 5.0  # s between two looks at a server that is ready
PROBE_TIMEOUT = 5.0  # s; /health has HTTP threads of its own and answers within milliseconds under full load
SILENCE_LIMIT = 30.0  # s without a 200 from a server that was ready; then the manager has to start a new one
START_SILENCE_LIMIT = 600.0  # s without any answer while starting: a SIF on a cold network disk is slow, not that slow
EXTEND_USEC = 60_000_000  # how much more time each look at a loading server asks systemd for
SECOND_TERM = 5.0  # s after the first TERM: with a client still connected, llama-server leaves only at the second
GRACE = 10.0  # s between TERM and KILL, and between KILL and giving up, for what a former run left
SWEEP_GRACE = 2.0  # s for the container's FUSE helpers to leave by themselves after the server
LEAVING_EVERY = 0.02  # s between two looks at processes that are to end
FAILED_START_PAUSE = 10.0  # s, see Runner.pause
LONGEST_LINE = 65536  # bytes
KNOCK = 0.5  # s for a server to take a connection
DRAIN_EVERY = 0.01  # s between two looks at the connections while the last requests end
SLOTS_FIRST, SLOTS_LAST = 0.3, 4.0  # s between two looks at the slots then; an idle connection lives for 5 s
STOP_SLACK = 45  # s on top of drain and stop, after which a runner that hangs in its own stop is killed

STOP_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT})
SIGNALS = STOP_SIGNALS | {signal.SIGCHLD}
PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
SYS_PIDFD_GETFD = 438  # asm-generic/unistd.h, the same on every architecture; Linux 5.6
LISTENS, CONNECTED = "0A", ("01", "08")  # states in /proc/net/tcp; 08: the client has said all, and still listens
LIBC = ctypes.CDLL(None)


class ConfigError(Exception):
    """What was asked for cannot be run; the message is for the operator."""


class Launch(NamedTuple):
    """What to run, as instance.json says; timeouts in seconds."""

    id: str
    argv: list[str]
    env: dict[str, str]
    url: str
    state_file: str = ""  # elsewhere than in the instance's folder, which a host's unit may not write to
    api_key_file: str | None = None
    log: str | None = None
    files: tuple[str, ...] = ()  # what the server reads, as the host calls it
    drain_timeout: float = 60.0
    stop_timeout: float = 30.0
    stall_timeout: float = 600.0


def read_launch(directory: str) -> Launch:
    """The launch in instance.json; ConfigError says what is wrong with it."""
    path = os.path.join(directory, RECORD)
    try:
        with open(path, encoding="utf-8") as file:
            value = json.load(file)["launch"]
        launch = Launch(**{name: value[name] for name in Launch._fields if name in value})
        words = [launch.url, *launch.argv, *launch.env.keys(), *launch.env.values()]
        if not launch.argv or not all(isinstance(word, str) and "\0" not in word for word in words):
            raise ValueError("argv and env have to be text")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}; deploy the instance again") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} holds no valid launch ({error!r}); deploy the instance again") from error
    return launch


def stamp(path: str) -> list[int] | None:
    """Inode, size in bytes and mtime in ns of a file; None where there is none, and for a folder: it changes in use."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return [found.st_ino, found.st_size, found.st_mtime_ns] if stat.S_ISREG(found.st_mode) else None


def read_key(path: str | None) -> str | None:
    """The first key of a file for llama-server's --api-key-file (one a line, # begins a comment); None without one."""
    try:
        with open(path or os.devnull, encoding="utf-8") as file:
            lines = [line.strip() for line in file]
    except (OSError, ValueError):
        return None
    # Beyond ASCII there is no header to send it in.
    return next((line for line in lines if line and line.isascii() and not line.startswith("#")), None)


def address(url: str) -> tuple[str, int]:
    """Host and port of a launch's url, http://HOST:PORT."""
    host, dummy, port = url.partition("//")[2].rpartition(":")
    return host.strip("[]"), int(port)


class Line:
    """One connection to the server, never through a proxy. In a drain it is the only one: nobody new gets in."""

    def __init__(self, url: str, key: str | None, timeout: float) -> None:
        self.url, self.timeout = url, timeout
        self.head = f"Host: {url.partition('//')[2]}\r\n" + (f"Authorization: Bearer {key}\r\n" if key else "")
        self.answers: IO[bytes] | None = None
        self.socket: socket.socket | None = None
        self.over = False

    def ask(self, path: str) -> tuple[int | None, bytes]:
        """HTTP status and body of a GET; status None when there is no answer, and from then on."""
        if self.over:
            return None, b""
        try:
            if self.socket is None or self.answers is None:
                self.socket = socket.create_connection(address(self.url), self.timeout)
                self.answers = self.socket.makefile("rb")
            self.socket.sendall(f"GET {path} HTTP/1.1\r\n{self.head}\r\n".encode("ascii"))
            return read_answer(self.answers)
        except (OSError, ValueError, IndexError):
            self.close()
            return None, b""

    def close(self) -> None:
        """Hang up."""
        for one in (self.answers, self.socket):
            if one is not None:
                one.close()
        self.over = True


def read_answer(answers: IO[bytes]) -> tuple[int, bytes]:
    """HTTP status and body, whose length llama-server always says where it does not stream.

    Raises OSError for a connection that ended before, ValueError and IndexError for what is no such answer.
    """
    status = int(answers.readline(LONGEST_LINE).split()[1])
    length = None
    while line := answers.readline(LONGEST_LINE).strip():
        name, dummy, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    if length is None:
        raise ValueError("no Content-Length")
    body = answers.read(length)
    if len(body) < length:
        raise ConnectionError("cut short")
    return status, body


def get(url: str, path: str, timeout: float, key: str | None = None) -> tuple[int | None, Any]:
    """HTTP status and JSON value of a GET. Status None: no answer within timeout seconds. Value None: no JSON."""
    line = Line(url, key, timeout)
    status, body = line.ask(path)
    line.close()
    try:
        return status, json.loads(body) if status == 200 else None
    except ValueError:
        return status, None


def health(url: str, timeout: float) -> int | None:
    """HTTP status of /health: 200 ready, 503 loading, None without an answer within timeout seconds. Needs no key."""
    return get(url, "/health", timeout)[0]


def slots(url: str, key: str | None, timeout: float) -> list[dict[str, Any]] | None:
    """The slots; None when the server does not tell (--no-slots, another key) or not within timeout seconds."""
    value = get(url, "/slots", timeout, key)[1]
    return value if isinstance(value, list) else None


def working(value: Any) -> list[dict[str, Any]]:
    """The slots in an answer of /slots that work on a request; none where it does not tell."""
    slots = value if isinstance(value, list) else []
    return [slot for slot in slots if isinstance(slot, dict) and slot.get("is_processing")]


def tcp(url: str) -> dict[int, tuple[str, str]]:
    """State and inode, by the other end's port, of this host's TCP sockets whose own end has the port of url.

    The inode is "0" as long as the server has not taken the connection. A listening socket has no other end: port 0.
    """
    port, found = address(url)[1], {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table, encoding="ascii") as file:
                rows = [line.split() for line in file.readlines()[1:]]
        except OSError:
            continue
        ports = [(row, [int(end.rpartition(":")[2], 16) for end in row[1:3]]) for row in rows]
        found.update({other: (row[3], row[9]) for row, (own, other) in ports if own == port})
    return found


def listened(url: str) -> bool:
    """Whether somebody takes connections at url."""
    try:
        with socket.create_connection(address(url), timeout=PROBE_TIMEOUT) as line:
            return line.getsockname() != line.getpeername()  # a port that a connection may begin at can meet itself
    except OSError:
        return False


def taken(url: str) -> int:
    """Number of connections that the server has taken and whose client still listens."""
    return sum(state in CONNECTED and inode != "0" for state, inode in tcp(url).values())


def shut_door(url: str, pids: list[int]) -> bool:
    """Have no new connection taken at url by these processes; those that are taken go on. False where that cannot be.

    llama-server closes its door only together with every stream, and accept() that fails ends it, except for want of a
    file descriptor, which it waits for (cpp-httplib, Server::listen_internal). So it is left without one. A knock makes
    the accept() that waits already return; from then on the port can be closed, for which its socket is borrowed, as a
    debugger would. Where that is not allowed, or the kernel is older than 5.6, who comes waits in front, and is sent
    away when the server ends.
    """
    sockets = tcp(url)
    listens = {f"socket:[{inode}]" for state, inode in sockets.values() if state == LISTENS}
    comes_and_goes = {f"socket:[{inode}]" for state, inode in sockets.values() if state != LISTENS}
    for pid in pids:
        try:
            files = {int(fd): os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
            door = next((fd for fd, file in files.items() if file in listens), None)
            if door is None:
                continue
            # Not 0: poll() takes no more descriptors than that either.
            limit = next(fd for fd in range(len(files) + 1) if files.get(fd, "") in {"", *comes_and_goes})
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]))
        except OSError:  # gone, or not ours
            continue
        with contextlib.suppress(OSError, AttributeError):  # an old kernel, or a Python that was built on one
            close_port(url, pid, door)
        return True
    return False


def close_port(url: str, pid: int, door: int) -> None:
    """Have the listening socket, a descriptor of the process, refuse who comes; see shut_door. May raise OSError."""
    with socket.create_connection(address(url), timeout=PROBE_TIMEOUT) as knock:
        deadline = time.monotonic() + KNOCK
        while tcp(url).get(knock.getsockname()[1], ("", "0"))[1] == "0" and time.monotonic() < deadline:
            time.sleep(0.001)
        # Taken, or somebody else was in its place: in either case no accept() waits any more, and the next one fails
        # for want of a descriptor before it looks at the socket.
        handle = os.pidfd_open(pid)
        borrowed = LIBC.syscall(SYS_PIDFD_GETFD, handle, door, 0)
        os.close(handle)
        if borrowed >= 0:
            with socket.socket(fileno=borrowed) as listener:
                listener.shutdown(socket.SHUT_RD)


class Process(NamedTuple):
    """A line of the process table; start, in clock ticks since boot, makes the pid unmistakable."""

    parent: int
    session: int
    start: int
    name: str


def process(pid: int) -> Process | None:
    """The process with this pid; None when there is none (a zombie is none)."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            head, dummy, tail = file.read().rpartition(")")
    except OSError:
        return None
    state, parent, dummy, session, *rest = tail.split()
    return None if state in "ZX" else Process(int(parent), int(session), int(rest[15]), head.partition("(")[2])


def processes() -> dict[int, Process]:
    """The process table."""
    return {pid: entry for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if (entry := process(pid))}


def below(pid: int) -> list[int]:
    """All that descends from a process; for our own, all that we started: as subreaper we inherit the orphans."""
    table = processes()
    found: set[int] = set()
    more = {pid}
    while more:
        found |= more
        more = {other for other, entry in table.items() if entry.parent in found} - found
    return sorted(found - {pid})


def boot_id() -> str:
    """Which boot this is: pids and clock ticks of another one mean nothing."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def former_run(state_file: str) -> dict[str, Any]:
    """The state that the runner before us left, if it was written since the boot."""
    try:
        with open(state_file, encoding="utf-8") as file:
            value = json.load(file)
        return value if value["boot"] == boot_id() and value["runner_pid"] != os.getpid() else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def runner_of(state: dict[str, Any]) -> list[int]:
    """The runner that wrote this state, if it lives."""
    pid, start = state.get("runner_pid"), state.get("runner_start")
    entry = process(pid) if pid else None
    return [pid] if pid and entry and entry.start == start else []


def container_of(state: dict[str, Any]) -> list[int]:
    """What lives of the container in this state: all of the session that Runner.start made.

    Nothing else marks it. Apptainer's starter wipes the environment that it was given, and its change of credentials
    takes away a death signal, so the container outlives a runner that is killed.
    """
    session = state.get("container_pid")
    return [pid for pid, entry in processes().items() if entry.session == session]


def send(pids: list[int], number: int) -> None:
    """Signal those that are still there."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except OSError:
            continue


class Notifier:
    """systemd's notification socket, see sd_notify(3); silent where there is none."""

    def __init__(self) -> None:
        self.address = os.environ.get("NOTIFY_SOCKET", "")
        self.watchdog = int(os.environ.get("WATCHDOG_USEC") or 0) / 1e6  # s

    def __call__(self, *assignments: str) -> None:
        if self.address:
            address = "\0" + self.address[1:] if self.address.startswith("@") else self.address
            try:
                with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                    sender.settimeout(1.0)  # its queue is full when the manager itself hangs
                    sender.sendto("\n".join(assignments).encode(), address)
            except OSError as error:  # a manager that went away is no reason to stop serving
                sys.stderr.write(f"llamacpp runner: cannot notify {self.address}: {error}\n")


class Log:
    """Where the server's words go: our own stderr (the journal), or a file that is rotated and never truncated.

    A full disk costs lines, and stops neither the server nor the reading of its pipe.
    """

    def __init__(self, path: str | None) -> None:
        """Raises ConfigError for a file that cannot be written."""
        self.path, self.lock = path, threading.Lock()
        self.reader: threading.Thread | None = None
        try:
            self.file = os.open(path, APPEND, 0o666) if path else sys.stderr.fileno()
        except OSError as error:
            raise ConfigError(f"the log {path} cannot be written: {error.strerror}") from error

    def write(self, lines: bytes) -> None:
        """Whole lines, as they are."""
        with self.lock:
            with contextlib.suppress(OSError):
                if self.path and os.fstat(self.file).st_size + len(lines) > LOG_BYTES:
                    self.rotate(self.path)
            with contextlib.suppress(OSError):
                os.write(self.file, lines)

    def rotate(self, path: str) -> None:
        """Begin a new file; LOG_FILES old ones are kept, of which .1 is the youngest. May raise OSError."""
        names = [path, *(f"{path}.{number}" for number in range(1, LOG_FILES + 1))]
        for older, younger in zip(names[:0:-1], names[-2::-1]):
            with contextlib.suppress(FileNotFoundError):
                os.replace(younger, older)
        old, self.file = self.file, os.open(path, APPEND, 0o666)
        os.close(old)

    def mark(self, text: str) -> None:
        """A line of our own with the wall-clock time: llama-server's lines carry only the time since its start."""
        line = f"{time.strftime('%Y-%m-%d %H:%M:%S%z')} llamacpp runner: {text}\n"
        self.write(line.encode("utf-8", "backslashreplace"))

    def follow(self, pipe: IO[bytes]) -> None:
        """Copy the server's output from now on."""

        def copy() -> None:
            rest = b""
            while data := os.read(pipe.fileno(), LONGEST_LINE):
                lines, newline, rest = (rest + data).rpartition(b"\n")
                if newline or len(rest) > LONGEST_LINE:
                    self.write(lines + newline or rest + b"\n")
                    rest = rest if newline else b""
            if rest:
                self.write(rest + b"\n")

        self.reader = threading.Thread(target=copy, daemon=True)
        self.reader.start()


class Runner:
    """One run of one instance, from the start of its container to the end of its last process."""

    def __init__(self, directory: str, launch: Launch) -> None:
        self.directory, self.launch = directory, launch
        self.state_file = launch.state_file or os.path.join(directory, STATE)
        self.log, self.notify, self.key = Log(launch.log), Notifier(), read_key(launch.api_key_file)
        # /slots wakes a server that sleeps, and keeps it from falling asleep; /health and /props do neither.
        self.may_sleep = any("sleep-idle" in word.replace("_", "-") for word in launch.argv)
        self.child = 0
        self.status: int | None = None  # exit status of the container command; 128+N after signal N
        self.asked = False  # our manager has asked us to stop
        self.alive_at = self.moved_at = time.monotonic()
        self.last_seen: Any = None
        me = process(os.getpid())
        self.state: dict[str, Any] = {"runner_pid": os.getpid(), "runner_start": me and me.start, "boot": boot_id()}
        self.state.update(launch=launch.id, files={}, container_pid=None, server_pid=None, server_start=None)
        self.state.update(started=None, ready=None, cut=0, exit=None)

    def run(self) -> int:
        """Start, watch, stop, clean up; returns the exit status for the manager."""
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # sigtimedwait takes them, so they interrupt nothing
        LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self.clear()
        if self.asked:
            return 0
        self.start()
        trouble = self.watch()
        if trouble:
            self.log.mark(trouble + "; ending the server, to be started again")
            self.stop(SECOND_TERM)
        self.end("what the container left", lambda: below(os.getpid()), SWEEP_GRACE)
        if self.log.reader:
            self.log.reader.join(2.0)  # the last words; bounded, because a process that escaped may hold the pipe
        return self.finish(trouble)

    def wait(self, seconds: float) -> bool:
        """Sleep, but not past the end of a child or a request to stop; True when asked to stop just now."""
        info = signal.sigtimedwait(SIGNALS, max(seconds, 0.0))
        stop = info is not None and info.si_signo in STOP_SIGNALS
        self.asked = self.asked or stop
        try:
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    break
                if pid == self.child:
                    code = os.waitstatus_to_exitcode(status)
                    self.status = 128 - code if code < 0 else code
        except ChildProcessError:
            pass
        return stop

    def wait_exit(self, seconds: float) -> None:
        """Wait for the container command to end, for so long or until asked (again) to stop."""
        deadline = time.monotonic() + seconds
        while self.status is None and time.monotonic() < deadline and not self.wait(deadline - time.monotonic()):
            continue

    def end(self, what: str, find: Callable[[], list[int]], patience: float, first: int = 0) -> None:
        """See that the processes that find() finds end: the first signal now, KILL after patience seconds; bounded."""
        left = find()
        deadline = time.monotonic() + patience
        if first and left:
            self.log.mark(f"ending {what}: pid {left}")
            self.notify(f"EXTEND_TIMEOUT_USEC={int((patience + GRACE) * 1e6)}", f"STATUS=ending {what}")
            send(left, first)
        while left and time.monotonic() < deadline + GRACE:
            if time.monotonic() >= deadline:
                self.log.mark(f"killing {what}: pid {left}")
                send(left, signal.SIGKILL)
            self.wait(LEAVING_EVERY)
            left = find()

    def clear(self) -> None:
        """End what a former run left: a runner whose manager is gone, and the container of a runner that was killed."""
        former = former_run(self.state_file)
        patience = self.launch.drain_timeout + self.launch.stop_timeout + GRACE
        self.end("a runner whose manager is gone", lambda: runner_of(former), patience, signal.SIGTERM)
        self.end("what a former run left", lambda: container_of(former), GRACE, signal.SIGTERM)

    def save(self, **changes: Any) -> None:
        """Update the state file. A full disk costs the record, not the service."""
        self.state.update(changes)
        try:
            with open(self.state_file + ".new", "w", encoding="utf-8") as file:
                json.dump(self.state, file)
            os.replace(self.state_file + ".new", self.state_file)
        except OSError as error:
            self.log.mark(f"{self.state_file} cannot be written: {error.strerror}")

    def start(self) -> None:
        """Start the container in a session of its own: see clear(), and a Ctrl-C at our terminal is not for it."""
        self.log.mark(f"starting {self.launch.id}")
        self.save(started=time.time(), files={path: stamp(path) for path in self.launch.files})
        if listened(self.launch.url):  # or we would take its answers for those of our server
            self.log.mark(f"something else listens at {self.launch.url} already")
            self.status = 1
            return
        try:
            # A program of its own on the host has no run_command of a module.
            child = subprocess.Popen(  # pylint: disable=ansible-bad-function
                self.launch.argv,
                env=self.launch.env,
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if self.log.path else None,
                stderr=subprocess.STDOUT if self.log.path else None,
                start_new_session=True,
                # What we have blocked for ourselves is not blocked for it. Safe, because no thread runs yet.
                preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_SETMASK, ()),
            )
        except OSError as error:
            self.log.mark(f"{self.launch.argv[0]} cannot be started: {error.strerror}")
            self.status = 127 if isinstance(error, FileNotFoundError) else 126
            return
        self.child = child.pid
        self.save(container_pid=child.pid)
        child.returncode = 0  # wait() reaps all children, Popen must not wait for this one as well
        if child.stdout:
            self.log.follow(child.stdout)

    def watch(self) -> str:
        """Look after the server until it ended, by itself or as asked (returns ''), or hangs (returns why)."""
        next_look = time.monotonic() + START_EVERY
        while self.status is None:
            if self.wait(next_look - time.monotonic()):
                self.notify("STOPPING=1")
                limit = self.drain_limit()
                signal.alarm(int(limit + self.launch.stop_timeout) + STOP_SLACK)  # no manager has to know the limit
                if self.state["ready"]:
                    self.drain(limit)
                self.stop(self.launch.stop_timeout)
            elif self.status is None and time.monotonic() >= next_look:
                trouble = self.look() if self.state["ready"] else self.look_at_start()
                if trouble:
                    return trouble
                every = min(PROBE_EVERY, self.notify.watchdog / 3 or PROBE_EVERY)
                next_look = time.monotonic() + (every if self.state["ready"] else START_EVERY)
        return ""

    def look_at_start(self) -> str:
        """Is the server ready? 503 is loading, which takes as long as it takes."""
        code = health(self.launch.url, PROBE_TIMEOUT)
        if self.state["server_pid"] is None:
            entries = [(pid, process(pid)) for pid in [self.child, *below(self.child)]]
            servers = [(pid, entry.start) for pid, entry in entries if entry and entry.name == "llama-server"]
            if servers:
                self.save(server_pid=servers[0][0], server_start=servers[0][1])
        silent = time.monotonic() - self.alive_at
        if code == 200:
            self.alive_at = self.moved_at = time.monotonic()
            # What was not there at the start, and is here now, came before the server opened it: it would not be ready.
            files = {path: was or stamp(path) for path, was in self.state["files"].items()}
            self.save(ready=time.time(), files=files)
            self.log.mark(f"ready after {self.state['ready'] - self.state['started']:.1f} s")
            self.notify("READY=1", "WATCHDOG=1", "STATUS=ready")
        elif code is None and silent > START_SILENCE_LIMIT:
            return f"nothing has answered at {self.launch.url} for {silent:.0f} s"
        else:
            self.alive_at = self.alive_at if code is None else time.monotonic()
            doing = "loading the model" if code == 503 else "starting the container"
            self.notify(f"EXTEND_TIMEOUT_USEC={EXTEND_USEC}", f"STATUS={doing}")
        return ""

    def look(self) -> str:
        """Does the server still work? Feeds the watchdog if so; returns what is wrong when it is time to give it up."""
        code = health(self.launch.url, PROBE_TIMEOUT)
        if code == 200:
            self.alive_at = time.monotonic()
            if not self.may_sleep:
                self.look_at_slots()
        silent, still = time.monotonic() - self.alive_at, time.monotonic() - self.moved_at
        if silent > SILENCE_LIMIT:
            return f"/health has not answered 200 for {silent:.0f} s (last: {code or 'no answer'})"
        if still > self.launch.stall_timeout and not self.may_sleep:
            return f"/health answers, but no busy slot has moved for {still:.0f} s"
        if code == 200:
            self.notify("WATCHDOG=1")
        return ""

    def look_at_slots(self) -> None:
        """Note when the busy slots last moved. One loop serves them all, so a hang stops all: one that moves is enough.

        An idle server is not tried with a request of our own: that would push out what its users have in the prompt
        cache. A silent /slots is a standstill, because its answer comes from that same loop between two batches; a
        server that refuses to tell (501, 401) is taken for a working one.
        """
        code, value = get(self.launch.url, "/slots", PROBE_TIMEOUT, self.key)
        # Builds name their counters differently (n_decoded, n_prompt_tokens_processed), so all of a slot is compared.
        busy = working(value)
        if code is not None and (not busy or busy != self.last_seen):
            self.moved_at, self.last_seen = time.monotonic(), busy

    def in_work(self, line: Line) -> int | None:
        """Number of slots that work on a request; None where the server does not tell."""
        if self.may_sleep and b'"is_sleeping":true' in line.ask("/props")[1].replace(b" ", b""):
            return 0
        code, body = line.ask("/slots")
        try:
            value = json.loads(body) if code == 200 else None
        except ValueError:
            value = None
        return len(working(value)) if isinstance(value, list) else None

    def drain_limit(self) -> float:
        """Seconds that a drain may take: as instance.json says by now, so that a change of it needs no restart."""
        try:
            return read_launch(self.directory).drain_timeout
        except ConfigError:
            return self.launch.drain_timeout

    def drain(self, limit: float) -> None:
        """Shut the door and let the requests in flight end, which TERM would cut; bounded, as by being asked again.

        All is done when nobody is connected, or when the slots are idle at two looks: who is connected then, waits with
        the next request. Whom the server does not tell, goes by the connections alone; idle ones it ends after 5 s.
        With a door that cannot be shut somebody new may come at any time, so there the first idle look has to do.
        """
        url, begin = self.launch.url, time.monotonic()
        line = Line(url, self.key, PROBE_TIMEOUT)
        slots = self.in_work(line)  # also sees to it that the line is taken before the door is shut
        shut = shut_door(url, [self.child, *below(self.child)])
        if not shut:
            self.log.mark("the server's door cannot be shut, so it takes new requests until it is idle")
        pause = SLOTS_FIRST if shut else DRAIN_EVERY
        look, tell = begin + pause, begin
        while self.status is None:
            idle = slots == 0 and not shut
            others = taken(url) - (not line.over)
            if not idle and (time.monotonic() >= look or (others <= 0 and slots)):
                if line.over and not shut:
                    line = Line(url, self.key, PROBE_TIMEOUT)
                before, slots = slots, self.in_work(line)
                idle = slots == 0 and (before == 0 or not shut)
                pause = min(pause * 1.5, SLOTS_LAST) if shut else pause
                look = time.monotonic() + pause
            if idle or (others <= 0 and not slots):
                break
            busy = slots or max(others, 1)
            if time.monotonic() >= tell:
                # The watchdog, too: nobody is asked any more whether the server works, and the drain is bounded.
                self.notify("WATCHDOG=1", f"STATUS=stopping, waiting for {busy} request(s)")
                tell = time.monotonic() + 1.0
            if self.wait(DRAIN_EVERY) or time.monotonic() - begin > limit:
                self.log.mark(f"stopping with {busy} request(s) unfinished after {time.monotonic() - begin:.0f} s")
                self.save(cut=busy)
                break
        line.close()

    def stop(self, patience: float) -> None:
        """TERM, TERM again, and KILL after patience seconds; asked again to stop, the next of these at once."""
        deadline = time.monotonic() + patience
        for seconds in (min(SECOND_TERM, patience / 2), patience):
            if self.status is None:
                self.notify("STATUS=stopping")
                send([self.child], signal.SIGTERM)
                self.wait_exit(min(seconds, deadline - time.monotonic()))
        if self.status is None:
            self.end("a server that TERM did not end", lambda: below(os.getpid()), 0.0)

    def finish(self, trouble: str) -> int:
        """Record the end and work out the exit status."""
        status = 137 if self.status is None else self.status
        self.log.mark(f"ended with exit status {status}" + (", as asked" if self.asked else ""))
        self.save(exit={"status": status, "at": time.time()})
        if self.asked and status in (1, 130, 143):  # llama-server's answers to a second TERM, and to one while it loads
            return 0
        if trouble:
            return status or 1
        self.pause()
        return status

    def pause(self) -> None:
        """After a failed start: no manager waits longer and longer, and each start may read a big model from disk."""
        deadline = time.monotonic() + FAILED_START_PAUSE
        while not (self.asked or self.state["ready"] or time.monotonic() > deadline):
            self.wait(deadline - time.monotonic())


def main(argv: list[str]) -> int:
    """Run the instance in the folder that is the only argument."""
    try:
        if len(argv) != 2:
            raise ConfigError("expected one argument, the folder of the instance")
        directory = os.path.realpath(argv[1])
        return Runner(directory, read_launch(directory)).run()
    except ConfigError as error:
        sys.stderr.write(f"llamacpp runner: {error}\n")
        return EXIT_CONFIG


if __name__ == "__main__":
    code = main(sys.argv)
    with contextlib.suppress(OSError):
        sys.stderr.flush()
    os._exit(code)  # Python takes a while to clear up, and who waits for our end need not wait for that
