# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The runner: the process between a manager and the container of one llama-server.

Private to gpufleet.llamacpp; may change at any time.

The manager runs ``python3 -IS <instance>/runner.py <instance>``. The key ``launch`` of ``instance.json`` in that folder
says what to start; ``running.json`` there has the runner's state. Each instance has a copy of this file, which works
without Ansible. So it imports the standard library alone, and nothing of the collection.

A manager sees when a process exits. The runner adds what is special to llama-server. It is ready when ``/health``
answers 200; it answers 503 from its first second on. It hangs when ``/health`` is silent, or when its busy slots stand
still. TERM cuts its requests, so it is drained first. And a container that is killed leaves its FUSE process.

During a change nobody is served until this program has started the container, so it must start fast. http.client is
imported after that. The log is copied by hand, because logging needs 20 times the processor time for it.
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
EXIT_CONFIG = 78  # EX_CONFIG of sysexits.h: a restart cannot help, and the managers do not restart after it
LOG_BYTES, LOG_FILES = 20 * 1024 * 1024, 5
LONGEST_LINE = 65536  # bytes
APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT
START_EVERY = 0.5  # s between two probes of a server that loads
PROBE_EVERY = 5.0  # s between two probes of a server that is ready
PROBE_TIMEOUT = 5.0  # s; /health has HTTP threads of its own and answers within milliseconds under full load
SILENCE_LIMIT = 30.0  # s without a 200 from a ready server, until it is restarted
START_SILENCE_LIMIT = 600.0  # s without any answer from a server that starts; a SIF on a cold network disk is slow
EXTEND_USEC = 60_000_000  # the extra time that each probe of a loading server requests from systemd
SECOND_TERM = 5.0  # s after the first TERM: while a client is connected, llama-server exits only at the second
GRACE = 10.0  # s between TERM and KILL, and between KILL and giving up, for what a former run left
SWEEP_GRACE = 2.0  # s for the container's FUSE processes to exit after the server
END_EVERY = 0.02  # s between two looks at processes that should end
FAILED_START_PAUSE = 10.0  # s, see Runner.pause
ACCEPT_TIMEOUT = 0.5  # s for a server to accept a connection
DRAIN_EVERY = 0.01  # s between two looks at the connections during a drain
SLOTS_FIRST, SLOTS_LAST = 0.3, 4.0  # s between two requests for the slots during a drain; idle connections live 5 s
STOP_SLACK = 45  # s on top of drain and stop, after which a runner that hangs in its own stop is killed

STOP_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT})
SIGNALS = STOP_SIGNALS | {signal.SIGCHLD}
PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
SYS_PIDFD_GETFD = 438  # asm-generic/unistd.h, the same on every architecture; Linux 5.6
LISTENS, CONNECTED = "0A", ("01", "08")  # states in /proc/net/tcp; 08: the client has sent all, and still reads
LIBC = ctypes.CDLL(None)


class ConfigError(Exception):
    """The instance cannot be started as it is configured. The message is for the operator."""


class Server(NamedTuple):
    """The server to run: the launch in instance.json. Timeouts in seconds."""

    id: str
    argv: list[str]
    env: dict[str, str]
    url: str
    state_file: str = ""  # for a system unit, whose user may not write to the folder of the instance
    api_key_file: str | None = None
    log: str | None = None
    files: tuple[str, ...] = ()  # that the server reads, by their paths on the host
    drain_timeout: float = 60.0
    stop_timeout: float = 30.0
    stall_timeout: float = 600.0


def read_server(directory: str) -> Server:
    """The server in instance.json. Raises ConfigError."""
    path = os.path.join(directory, RECORD)
    try:
        with open(path, encoding="utf-8") as file:
            value = json.load(file)["launch"]
        server = Server(**{name: value[name] for name in Server._fields if name in value})
        words = [server.url, *server.argv, *server.env.keys(), *server.env.values()]
        if not server.argv or not all(isinstance(word, str) and "\0" not in word for word in words):
            raise ValueError("argv and env have to be text")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}. Deploy the instance again.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} has no valid launch ({error!r}). Deploy the instance again.") from error
    return server


def stamp(path: str) -> list[int] | None:
    """Inode, size in bytes and mtime in ns of a file; None for a missing file, and for a folder."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return [found.st_ino, found.st_size, found.st_mtime_ns] if stat.S_ISREG(found.st_mode) else None


def read_key(path: str | None) -> str | None:
    """The first key in a file for --api-key-file, which has one a line and comments with #; None if there is none."""
    try:
        with open(path or os.devnull, encoding="utf-8") as file:
            lines = [line.strip() for line in file]
    except (OSError, ValueError):
        return None
    # A header cannot contain anything but ASCII.
    return next((line for line in lines if line and line.isascii() and not line.startswith("#")), None)


def address(url: str) -> tuple[str, int]:
    """Host and port of a server's url, http://HOST:PORT."""
    host, dummy, port = url.partition("//")[2].rpartition(":")
    return host.strip("[]"), int(port)


class Connection:
    """One HTTP connection to the server, without a proxy. It is never reopened: a drain lets nobody in."""

    def __init__(self, url: str, key: str | None, timeout: float) -> None:
        import http.client  # see the top of this file

        self.http = http.client.HTTPConnection(*address(url), timeout=timeout)
        self.errors = (OSError, http.client.HTTPException)
        self.headers = {"Authorization": f"Bearer {key}"} if key else {}

    @property
    def open(self) -> bool:
        """Whether the server can send an answer."""
        return self.http.sock is not None

    def get(self, path: str) -> tuple[int | None, bytes]:
        """HTTP status and body of a GET; status None without an answer, and from then on."""
        try:
            self.http.request("GET", path, headers=self.headers)
            self.http.auto_open = 0
            answer = self.http.getresponse()
            return answer.status, answer.read()
        except self.errors:
            self.http.auto_open = 0
            self.close()
            return None, b""

    def close(self) -> None:
        """Close the connection."""
        self.http.close()


def get(url: str, path: str, timeout: float, key: str | None = None) -> tuple[int | None, Any]:
    """HTTP status and JSON value of a GET. Status None: no answer within ``timeout`` seconds. Value None: no JSON."""
    connection = Connection(url, key, timeout)
    status, body = connection.get(path)
    connection.close()
    return status, json_of(body) if status == 200 else None


def json_of(body: bytes) -> Any:
    """The JSON value of a body; None for anything else."""
    try:
        return json.loads(body)
    except ValueError:
        return None


def health(url: str, timeout: float) -> int | None:
    """HTTP status of /health: 200 ready, 503 loading, None without an answer in ``timeout`` s. Needs no key."""
    return get(url, "/health", timeout)[0]


def busy_slots(value: Any) -> list[dict[str, Any]]:
    """The slots in an answer of /slots that process a request; none if it is no list of slots."""
    slots = value if isinstance(value, list) else []
    return [slot for slot in slots if isinstance(slot, dict) and slot.get("is_processing")]


def sockets(url: str) -> dict[int, tuple[str, str]]:
    """State and inode, by the remote port, of this host's TCP sockets with the local port of ``url``.

    The inode is "0" until the server has accepted the connection. A listening socket has the remote port 0.
    """
    port, found = address(url)[1], {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table, encoding="ascii") as file:
                rows = [line.split() for line in file.readlines()[1:]]
        except OSError:
            continue
        ports = [(row, [int(end.rpartition(":")[2], 16) for end in row[1:3]]) for row in rows]
        found.update({remote: (row[3], row[9]) for row, (local, remote) in ports if local == port})
    return found


def is_in_use(url: str) -> bool:
    """Whether a process accepts connections at ``url``."""
    try:
        with socket.create_connection(address(url), timeout=PROBE_TIMEOUT) as probe:
            return bool(probe.getsockname() != probe.getpeername())  # a connection from this very port can meet itself
    except OSError:
        return False


def accepted(url: str) -> int:
    """Number of connections that the server has accepted and whose client still reads."""
    return sum(state in CONNECTED and inode != "0" for state, inode in sockets(url).values())


def stop_accepting(url: str, pids: list[int]) -> bool:
    """Make these processes accept no more connections at ``url``; accepted ones go on. False if that is not possible.

    llama-server closes its listening socket only together with every stream. An accept() that fails ends it, except
    without a free file descriptor: then it waits for one (cpp-httplib, Server::listen_internal). So its limit of
    descriptors is lowered. One connection makes the accept() that waits already return. Then the socket can be shut
    down, on a duplicate that is taken from the process, as a debugger would. If that is not allowed, or the kernel is
    older than 5.6, new clients wait in the queue until the server ends.
    """
    table = sockets(url)
    listening = {f"socket:[{inode}]" for state, inode in table.values() if state == LISTENS}
    transient = {f"socket:[{inode}]" for state, inode in table.values() if state != LISTENS}
    for pid in pids:
        try:
            files = {int(fd): os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
            listener = next((fd for fd, file in files.items() if file in listening), None)
            if listener is None:
                continue
            # Not 0: poll() accepts no more descriptors than the limit either.
            limit = next(fd for fd in range(len(files) + 1) if files.get(fd, "") in {"", *transient})
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]))
        except OSError:  # it is gone, or belongs to another user
            continue
        with contextlib.suppress(OSError, AttributeError):  # an old kernel, or a Python that was built on one
            shut_down_listener(url, pid, listener)
        return True
    return False


def shut_down_listener(url: str, pid: int, listener: int) -> None:
    """Make the listening socket, a descriptor of the process, refuse clients; see stop_accepting. May raise OSError."""
    with socket.create_connection(address(url), timeout=PROBE_TIMEOUT) as last:
        deadline = time.monotonic() + ACCEPT_TIMEOUT
        while sockets(url).get(last.getsockname()[1], ("", "0"))[1] == "0" and time.monotonic() < deadline:
            time.sleep(0.001)
        # Now no accept() waits any more, whether it returned this client or another one. The next accept() fails for
        # want of a descriptor before it looks at the socket.
        handle = os.pidfd_open(pid)
        duplicate = LIBC.syscall(SYS_PIDFD_GETFD, handle, listener, 0)
        os.close(handle)
        if duplicate >= 0:
            with socket.socket(fileno=duplicate) as closing:
                closing.shutdown(socket.SHUT_RD)


class Process(NamedTuple):
    """A line of the process table. ``start``, in clock ticks since boot, distinguishes it from a reused pid."""

    parent: int
    session: int
    start: int
    name: str


def process(pid: int) -> Process | None:
    """The process with this pid; None if there is none, or a zombie."""
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
    """All descendants of a process. The runner's are all that it started: as subreaper it inherits the orphans."""
    table = processes()
    found: set[int] = set()
    more = {pid}
    while more:
        found |= more
        more = {other for other, entry in table.items() if entry.parent in found} - found
    return sorted(found - {pid})


def boot_id() -> str:
    """The id of this boot. Pids and clock ticks of another boot are meaningless."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def former_run(state_file: str) -> dict[str, Any]:
    """The state that the last runner left; empty if it is older than the boot."""
    try:
        with open(state_file, encoding="utf-8") as file:
            value = json.load(file)
        return value if value["boot"] == boot_id() and value["runner_pid"] != os.getpid() else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def runner_of(state: dict[str, Any]) -> list[int]:
    """The pid of the runner that wrote this state, if it still runs."""
    pid, start = state.get("runner_pid"), state.get("runner_start")
    entry = process(pid) if pid else None
    return [pid] if pid and entry and entry.start == start else []


def container_of(state: dict[str, Any]) -> list[int]:
    """The processes of the container in this state: all of the session that Runner.start created.

    Nothing else identifies them. Apptainer's starter clears the environment, and its change of credentials clears a
    parent death signal, so that the container outlives a runner that is killed.
    """
    session = state.get("container_pid")
    return [pid for pid, entry in processes().items() if entry.session == session]


def send(pids: list[int], number: int) -> None:
    """Send a signal to those processes that still exist."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except OSError:
            continue


class Notifier:
    """systemd's notification socket, see sd_notify(3). Does nothing if there is none."""

    def __init__(self) -> None:
        self.address = os.environ.get("NOTIFY_SOCKET", "")
        self.watchdog = int(os.environ.get("WATCHDOG_USEC") or 0) / 1e6  # s

    def __call__(self, *assignments: str) -> None:
        if self.address:
            address = "\0" + self.address[1:] if self.address.startswith("@") else self.address
            try:
                with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                    sender.settimeout(1.0)  # its queue is full if systemd itself hangs
                    sender.sendto("\n".join(assignments).encode(), address)
            except OSError as error:  # the server goes on without systemd
                sys.stderr.write(f"llamacpp runner: cannot notify {self.address}: {error}\n")


class Log:
    """The server's log: our own stderr (the journal), or a file, which is rotated and never truncated.

    On a full disk lines are lost, but the server and its pipe go on.
    """

    def __init__(self, path: str | None) -> None:
        """Raises ConfigError if the file cannot be written."""
        self.path, self.lock = path, threading.Lock()
        self.reader: threading.Thread | None = None
        try:
            self.file = os.open(path, APPEND, 0o666) if path else sys.stderr.fileno()
        except OSError as error:
            raise ConfigError(f"the log {path} cannot be written: {error.strerror}.") from error

    def write(self, lines: bytes) -> None:
        """Write whole lines, unchanged."""
        with self.lock:
            with contextlib.suppress(OSError):
                if self.path and os.fstat(self.file).st_size + len(lines) > LOG_BYTES:
                    self.rotate(self.path)
            with contextlib.suppress(OSError):
                os.write(self.file, lines)

    def rotate(self, path: str) -> None:
        """Begin a new file, and keep LOG_FILES old ones; .1 is the latest. May raise OSError."""
        names = [path, *(f"{path}.{number}" for number in range(1, LOG_FILES + 1))]
        for older, younger in zip(names[:0:-1], names[-2::-1]):
            with contextlib.suppress(FileNotFoundError):
                os.replace(younger, older)
        old, self.file = self.file, os.open(path, APPEND, 0o666)
        os.close(old)

    def mark(self, text: str) -> None:
        """Write a line of our own with the time of day; llama-server's lines have only the time since its start."""
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

    def __init__(self, directory: str, server: Server) -> None:
        self.directory, self.server = directory, server
        self.state_file = server.state_file or os.path.join(directory, STATE)
        self.log, self.notify, self.key = Log(server.log), Notifier(), read_key(server.api_key_file)
        # A request for /slots wakes a sleeping server, or keeps it awake. /health and /props do not.
        self.may_sleep = any("sleep-idle" in word.replace("_", "-") for word in server.argv)
        self.child = 0
        self.status: int | None = None  # exit status of the container command; 128+N after signal N
        self.stopping = False  # the manager has requested a stop
        self.healthy_at = self.moved_at = time.monotonic()
        self.last_busy: Any = None
        me = process(os.getpid())
        self.state: dict[str, Any] = {"runner_pid": os.getpid(), "runner_start": me and me.start, "boot": boot_id()}
        self.state.update(launch=server.id, files={}, container_pid=None, server_pid=None, server_start=None)
        self.state.update(started=None, ready=None, cut=0, exit=None)

    def run(self) -> int:
        """Start, watch, stop and clean up; returns the exit status for the manager."""
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # sigtimedwait receives them, so they interrupt nothing
        LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self.end_former_run()
        if self.stopping:
            return 0
        self.start()
        trouble = self.watch()
        if trouble:
            self.log.mark(f"{trouble}; ending the server for a restart")
            self.stop(SECOND_TERM)
        self.end("remaining processes of the container", lambda: below(os.getpid()), SWEEP_GRACE)
        if self.log.reader:
            self.log.reader.join(2.0)  # the last lines; with a limit, because a process that escaped may keep the pipe
        return self.finish(trouble)

    def wait(self, seconds: float) -> bool:
        """Sleep until a child ends or a stop is requested, at most ``seconds``; True if a stop was requested."""
        info = signal.sigtimedwait(SIGNALS, max(seconds, 0.0))
        stop = info is not None and info.si_signo in STOP_SIGNALS
        self.stopping = self.stopping or stop
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
        """Wait until the container command ends or a stop is requested (again), at most ``seconds``."""
        deadline = time.monotonic() + seconds
        while self.status is None and time.monotonic() < deadline and not self.wait(deadline - time.monotonic()):
            continue

    def end(self, what: str, find: Callable[[], list[int]], timeout: float, first: int = 0) -> None:
        """End the processes that find() returns: signal ``first`` now, KILL after ``timeout`` seconds; bounded."""
        left = find()
        deadline = time.monotonic() + timeout
        if first and left:
            self.log.mark(f"ending {what}: pid {left}")
            self.notify(f"EXTEND_TIMEOUT_USEC={int((timeout + GRACE) * 1e6)}", f"STATUS=ending {what}")
            send(left, first)
        while left and time.monotonic() < deadline + GRACE:
            if time.monotonic() >= deadline:
                self.log.mark(f"killing {what}: pid {left}")
                send(left, signal.SIGKILL)
            self.wait(END_EVERY)
            left = find()

    def end_former_run(self) -> None:
        """End what a former run left: a runner without its manager, and the container of a runner that was killed."""
        former = former_run(self.state_file)
        timeout = self.server.drain_timeout + self.server.stop_timeout + GRACE
        self.end("a runner whose manager is gone", lambda: runner_of(former), timeout, signal.SIGTERM)
        self.end("the container of a former run", lambda: container_of(former), GRACE, signal.SIGTERM)

    def save(self, **changes: Any) -> None:
        """Update the state file. On a full disk the state is lost, but the server goes on."""
        self.state.update(changes)
        try:
            with open(self.state_file + ".new", "w", encoding="utf-8") as file:
                json.dump(self.state, file)
            os.replace(self.state_file + ".new", self.state_file)
        except OSError as error:
            self.log.mark(f"{self.state_file} cannot be written: {error.strerror}")

    def start(self) -> None:
        """Start the container in its own session: container_of() finds it there, and a terminal's Ctrl-C does not."""
        self.log.mark(f"starting {self.server.id}")
        self.save(started=time.time(), files={path: stamp(path) for path in self.server.files})
        if is_in_use(self.server.url):  # its answers would be taken for those of our server
            self.log.mark(f"another process listens at {self.server.url} already")
            self.status = 1
            return
        try:
            # This program runs on the host, without a module's run_command.
            child = subprocess.Popen(  # pylint: disable=ansible-bad-function
                self.server.argv,
                env=self.server.env,
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if self.log.path else None,
                stderr=subprocess.STDOUT if self.log.path else None,
                start_new_session=True,
                # Our blocked signals are not blocked for the child. Safe, because no thread runs yet.
                preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_SETMASK, ()),
            )
        except OSError as error:
            self.log.mark(f"{self.server.argv[0]} cannot be started: {error.strerror}")
            self.status = 127 if isinstance(error, FileNotFoundError) else 126
            return
        self.child = child.pid
        self.save(container_pid=child.pid)
        child.returncode = 0  # wait() reaps all children, so Popen must not wait for this one
        if child.stdout:
            self.log.follow(child.stdout)

    def watch(self) -> str:
        """Watch the server until it has ended, by itself or as requested (returns ""), or hangs (returns why)."""
        next_probe = time.monotonic() + START_EVERY
        while self.status is None:
            if self.wait(next_probe - time.monotonic()):
                self.notify("STOPPING=1")
                limit = self.drain_limit()
                signal.alarm(int(limit + self.server.stop_timeout) + STOP_SLACK)  # no manager needs to know the limit
                if self.state["ready"]:
                    self.drain(limit)
                self.stop(self.server.stop_timeout)
            elif self.status is None and time.monotonic() >= next_probe:
                trouble = self.probe() if self.state["ready"] else self.probe_start()
                if trouble:
                    return trouble
                every = min(PROBE_EVERY, self.notify.watchdog / 3 or PROBE_EVERY)
                next_probe = time.monotonic() + (every if self.state["ready"] else START_EVERY)
        return ""

    def probe_start(self) -> str:
        """Probe a server that is not ready yet. Loading (503) may take any time; returns what is wrong otherwise."""
        code = health(self.server.url, PROBE_TIMEOUT)
        if self.state["server_pid"] is None:
            entries = [(pid, process(pid)) for pid in [self.child, *below(self.child)]]
            servers = [(pid, entry.start) for pid, entry in entries if entry and entry.name == "llama-server"]
            if servers:
                self.save(server_pid=servers[0][0], server_start=servers[0][1])
        silent = time.monotonic() - self.healthy_at
        if code == 200:
            self.healthy_at = self.moved_at = time.monotonic()
            # A file that did not exist at the start came before the server opened it, or the server would not be ready.
            files = {path: was or stamp(path) for path, was in self.state["files"].items()}
            self.save(ready=time.time(), files=files)
            self.log.mark(f"ready after {self.state['ready'] - self.state['started']:.1f} s")
            self.notify("READY=1", "WATCHDOG=1", "STATUS=ready")
        elif code is None and silent > START_SILENCE_LIMIT:
            return f"no answer at {self.server.url} for {silent:.0f} s"
        else:
            self.healthy_at = self.healthy_at if code is None else time.monotonic()
            doing = "loading the model" if code == 503 else "starting the container"
            self.notify(f"EXTEND_TIMEOUT_USEC={EXTEND_USEC}", f"STATUS={doing}")
        return ""

    def probe(self) -> str:
        """Probe a server that was ready. Feeds the watchdog if it works; returns why it must be restarted otherwise."""
        code = health(self.server.url, PROBE_TIMEOUT)
        if code == 200:
            self.healthy_at = time.monotonic()
            if not self.may_sleep:
                self.probe_slots()
        silent, still = time.monotonic() - self.healthy_at, time.monotonic() - self.moved_at
        if silent > SILENCE_LIMIT:
            return f"/health has not answered 200 for {silent:.0f} s (last: {code or 'no answer'})"
        if still > self.server.stall_timeout and not self.may_sleep:
            return f"/health answers, but no busy slot has moved for {still:.0f} s"
        if code == 200:
            self.notify("WATCHDOG=1")
        return ""

    def probe_slots(self) -> None:
        """Record when the busy slots last moved. One loop serves them all, so one that moves proves that it runs.

        An idle server gets no request of ours, which would evict its users' prompts from the cache. No answer of /slots
        counts as a standstill, because it comes from that same loop between two batches. A refusal (501, 401) counts as
        a server that works.
        """
        code, value = get(self.server.url, "/slots", PROBE_TIMEOUT, self.key)
        # The counters' names differ between builds (n_decoded, n_prompt_tokens_processed), so whole slots are compared.
        busy = busy_slots(value)
        if code is not None and (not busy or busy != self.last_busy):
            self.moved_at, self.last_busy = time.monotonic(), busy

    def requests(self, connection: Connection) -> int | None:
        """Number of slots that process a request; None if the server does not say."""
        if self.may_sleep and b'"is_sleeping":true' in connection.get("/props")[1].replace(b" ", b""):
            return 0
        code, body = connection.get("/slots")
        value = json_of(body) if code == 200 else None
        return len(busy_slots(value)) if isinstance(value, list) else None

    def drain_limit(self) -> float:
        """Seconds that a drain may take, read from instance.json now, so that a change of it needs no restart."""
        try:
            return read_server(self.directory).drain_timeout
        except ConfigError:
            return self.server.drain_timeout

    def drain(self, limit: float) -> None:
        """Refuse new clients, and wait for the requests in flight, which TERM would cut.

        It takes at most ``limit`` seconds, and ends when a stop is requested again. It is complete when nobody is
        connected, or when two probes find all slots idle: clients that are still connected then have no request.
        Without /slots only the connections count; llama-server closes idle ones after 5 s. If new clients cannot be
        refused, the first idle probe ends the drain.
        """
        url, begin = self.server.url, time.monotonic()
        connection = Connection(url, self.key, PROBE_TIMEOUT)
        slots = self.requests(connection)  # this also makes sure that the server has accepted our connection
        refusing = stop_accepting(url, [self.child, *below(self.child)])
        if not refusing:
            self.log.mark("new clients cannot be refused, so the server takes requests until it is idle")
        pause = SLOTS_FIRST if refusing else DRAIN_EVERY
        next_probe, next_notice = begin + pause, begin
        while self.status is None:
            idle = slots == 0 and not refusing
            others = accepted(url) - connection.open
            if not idle and (time.monotonic() >= next_probe or (others <= 0 and slots)):
                if not connection.open and not refusing:
                    connection = Connection(url, self.key, PROBE_TIMEOUT)
                before, slots = slots, self.requests(connection)
                idle = slots == 0 and (before == 0 or not refusing)
                pause = min(pause * 1.5, SLOTS_LAST) if refusing else pause
                next_probe = time.monotonic() + pause
            if idle or (others <= 0 and not slots):
                break
            busy = slots or max(others, 1)
            if time.monotonic() >= next_notice:
                # Also for the watchdog: a drain sends no probes, and is bounded.
                self.notify("WATCHDOG=1", f"STATUS=stopping, waiting for {busy} request(s)")
                next_notice = time.monotonic() + 1.0
            if self.wait(DRAIN_EVERY) or time.monotonic() - begin > limit:
                self.log.mark(f"stopping with {busy} request(s) unfinished after {time.monotonic() - begin:.0f} s")
                self.save(cut=busy)
                break
        connection.close()

    def stop(self, timeout: float) -> None:
        """TERM, TERM again, and KILL after ``timeout`` seconds. Another request to stop brings the next one at once."""
        deadline = time.monotonic() + timeout
        for seconds in (min(SECOND_TERM, timeout / 2), timeout):
            if self.status is None:
                self.notify("STATUS=stopping")
                send([self.child], signal.SIGTERM)
                self.wait_exit(min(seconds, deadline - time.monotonic()))
        if self.status is None:
            self.end("a server that TERM did not end", lambda: below(os.getpid()), 0.0)

    def finish(self, trouble: str) -> int:
        """Record the end; returns the exit status."""
        status = 137 if self.status is None else self.status
        self.log.mark(f"ended with exit status {status}" + (" after a request to stop" if self.stopping else ""))
        self.save(exit={"status": status, "at": time.time()})
        if self.stopping and status in (1, 130, 143):  # llama-server's status for a second TERM, and while it loads
            return 0
        if trouble:
            return status or 1
        self.pause()
        return status

    def pause(self) -> None:
        """Wait after a failed start: no manager has an increasing delay, and a start may read a big model from disk."""
        deadline = time.monotonic() + FAILED_START_PAUSE
        while not (self.stopping or self.state["ready"] or time.monotonic() > deadline):
            self.wait(deadline - time.monotonic())


def main(argv: list[str]) -> int:
    """Run the instance whose folder is the only argument."""
    try:
        if len(argv) != 2:
            raise ConfigError("expected one argument, the folder of the instance.")
        directory = os.path.realpath(argv[1])
        return Runner(directory, read_server(directory)).run()
    except ConfigError as error:
        sys.stderr.write(f"llamacpp runner: {error}\n")
        return EXIT_CONFIG


if __name__ == "__main__":
    code = main(sys.argv)
    with contextlib.suppress(OSError):
        sys.stderr.flush()
    os._exit(code)  # Python's own cleanup takes time, and the manager waits for this exit
