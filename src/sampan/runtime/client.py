"""How the engine talks to the launcher and to monitors. Blocking and thread-safe.

The life of a container, as its caller sees it::

    launcher = Launcher.spawn(exec_root)        # once; starts the launcher or finds it
    monitor = launcher.create(request)          # the container's namespaces exist, init waits
    ... plug the network into /proc/{monitor.pid}/ns/net ...
    stream = monitor.attach(stdin=False, stdout=True, stderr=True)      # sees every byte
    monitor.start()                             # the program runs (or an error says why not)
    events = monitor.watch()                    # one JSON object a line, the last is "exit"
    read_exit(request.directory)                # durable; the directory is the caller's to remove

Any other process may take part: :meth:`Monitor.connect` finds the monitor again by its directory.
A monitor that has gone without an exit record was killed: :func:`recover` ends what is left of its
container and writes the record in its place.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal as signals
import socket
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from sampan.errors import Corrupt, NotFound, StartFailed, Unavailable
from sampan.kernel import cgroup
from sampan.kernel.facts import Facts, probe
from sampan.kernel.seccomp import Filter
from sampan.kernel.seccomp_compiler import Compiler
from sampan.model import oci
from sampan.runtime import launch, orders
from sampan.runtime.channel import Message, receive_frame, send_frame
from sampan.runtime.dialogue import answer_of, ask, hear, tell
from sampan.runtime.outline import Outline, outline
from sampan.runtime.recovery import read_exit, read_live, recover
from sampan.runtime.requests import (
    DEFAULT_PARENT,
    CreateRequest,
    ExecRequest,
    ExitRecord,
    Live,
    LogSettings,
)
from sampan.runtime.version import fingerprint

__all__ = [
    "Asked",
    "CreateRequest",
    "ExecRequest",
    "ExitRecord",
    "Launcher",
    "Live",
    "LogSettings",
    "Making",
    "Monitor",
    "Outline",
    "events",
    "read_exit",
    "read_live",
    "recover",
]

_ANSWER_SECONDS = 5.0


class Monitor:
    """One control connection to the monitor of one container; methods may be called from threads.

    Attributes: ``pid`` of the container's first process, its ``start_time`` (clock ticks, field 22
    of /proc/pid/stat), ``warnings`` of the set-up (complete after :meth:`start`).
    """

    def __init__(
        self, directory: Path, connection: socket.socket, answer: Message, facts: Facts | None
    ) -> None:
        """Callers use :meth:`connect` or :meth:`Launcher.create`."""
        self.directory = directory
        self.pid: int = answer["pid"]
        self.start_time: int = answer["start_time"]
        self.warnings: tuple[str, ...] = ()
        self._connection = connection
        self._facts = facts
        self._lock = threading.Lock()

    @classmethod
    def connect(cls, directory: Path, facts: Facts | None = None) -> Monitor:
        """The monitor serving ``directory``. Raises :class:`NotFound` when it is gone.

        ``facts``: of this host, if they were probed already.
        """
        connection = launch.connect_monitor(directory)
        try:
            answer = ask(connection, {"op": "status"})
        except BaseException:
            connection.close()
            raise
        return cls(directory, connection, answer, facts)

    def start(self) -> None:
        """Wait for the set-up, let the program run; returns once it has been executed.

        Raises :class:`CommandNotFound`, :class:`CommandNotExecutable`, :class:`StartFailed`; the
        container and everything of it is gone then (an exit record says the same).
        """
        answer = self._request({"op": "start"})
        self.warnings += tuple(answer["warnings"])

    def keep(self) -> None:
        """Wait for the set-up; from then on init waits for :meth:`start`, also without us.

        Raises :class:`StartFailed`; the container and everything of it is gone then.
        """
        self._request({"op": "keep"})

    def abort(self) -> None:
        """Before :meth:`start`: end init and undo everything. Idempotent."""
        with contextlib.suppress(NotFound):
            self._request({"op": "abort"})

    def attach(self, *, stdin: bool, stdout: bool, stderr: bool) -> socket.socket:
        """A stream to the container's standard streams; before :meth:`start` it sees every byte.

        Without a terminal, output comes in Docker's framing (stream 1|2, three zeros, length as
        big-endian u32); with one it is raw. What is sent is stdin; ``shutdown(SHUT_WR)`` ends it.
        The peer closes when the output has ended.
        """
        return self.ask_attach(stdin=stdin, stdout=stdout, stderr=stderr).answered()

    def ask_attach(self, *, stdin: bool, stdout: bool, stderr: bool) -> Asked:
        """:meth:`attach`, without waiting for the answer."""
        message = {"op": "attach", "stdin": stdin, "stdout": stdout, "stderr": stderr}
        return Asked(launch.connect_monitor(self.directory), message)

    def exec(self, request: ExecRequest) -> tuple[socket.socket | None, int]:
        """Run one more process; returns (its stream as of :meth:`attach` or None, its pid).

        Raises :class:`CommandNotFound`, :class:`CommandNotExecutable`, :class:`StartFailed`,
        :class:`Conflict` when the container does not run or the exec id is taken. The exit is told
        by :meth:`watch`, and by :meth:`exec_exit` for those that were not watching.
        """
        connection = launch.connect_monitor(self.directory)  # wakes a worker while we plan
        try:
            if self._facts is None and not request.foreign:
                self._facts = probe()
            answer = ask(connection, orders.of_exec(request, self._facts))
        except BaseException:
            connection.close()
            raise
        pid = int(answer["pid"])
        if request.terminal or request.stdin or request.stdout or request.stderr:
            return connection, pid
        connection.close()
        return None, pid

    def exec_exit(self, exec_id: str) -> int | None:
        """Exit code of an ended exec, None while it runs. Raises :class:`NotFound`.

        The monitor remembers the last 256 that ended.
        """
        code: int | None = self._request({"op": "exec-exit", "exec_id": exec_id})["code"]
        return code

    def resize(self, height: int, width: int, exec_id: str | None = None) -> None:
        """Set a terminal's size; nothing is done where there is no terminal, as containerd does."""
        self._request({"op": "resize", "height": height, "width": width, "exec_id": exec_id})

    def signal(self, signal: int, exec_id: str | None = None) -> None:
        """Send a signal to the first process, or to an exec's. Raises :class:`NotFound`."""
        self._request({"op": "signal", "signal": signal, "exec_id": exec_id})

    def close_stdin(self, exec_id: str | None = None) -> None:
        """End the process's standard input."""
        self._request({"op": "close-stdin", "exec_id": exec_id})

    def watch(self) -> socket.socket:
        """A stream of events, one JSON object a line; end of stream: the monitor is gone.

        First the present state: ``{"event":"state","status":"created"|"running","pid":N,
        "execs":[{"exec_id":..,"pid":..}]}``, then ``{"event":"started"}``, ``{"event":"oom"}``,
        ``{"event":"exec-exit","exec_id":..,"code":N}``, and last ``{"event":"exit","code":N,
        "signal":N,"oom":bool,"at":nanoseconds,"error":".."}``, sent when the record is durable and
        cgroups are removed.
        """
        return self.ask_watch().answered()

    def ask_watch(self) -> Asked:
        """:meth:`watch`, without waiting for the answer."""
        return Asked(launch.connect_monitor(self.directory), {"op": "watch"})

    def close(self) -> None:
        """Close this connection; the container goes on. Idempotent."""
        self._connection.close()

    def _request(self, message: Message) -> Message:
        with self._lock:
            return ask(self._connection, message)


class Asked:
    """A stream that was asked for; the answer arrives while its caller does something else."""

    def __init__(self, connection: socket.socket, message: Message) -> None:
        """Callers use :class:`Monitor`. Raises :class:`NotFound` when the monitor is gone."""
        self._connection = connection
        try:
            tell(connection, message)
        except BaseException:
            self.close()
            raise

    def answered(self) -> socket.socket:
        """The stream, once it is one. Raises the error it was answered with."""
        try:
            hear(self._connection)
        except BaseException:
            self.close()
            raise
        return self._connection

    def close(self) -> None:
        """Nobody wants it any more. Idempotent."""
        self._connection.close()


class Making:
    """A container being made of which nobody knows the plan yet."""

    def __init__(self, outline: Outline, connection: socket.socket) -> None:
        """Callers use :meth:`Launcher.begin`."""
        self.outline = outline
        self.connection = connection

    def give_up(self) -> None:
        """There will be no plan; returns when all that was made is gone again. Idempotent."""
        with self.connection, contextlib.suppress(OSError):
            self.connection.settimeout(_ANSWER_SECONDS)
            self.connection.shutdown(socket.SHUT_WR)
            while self.connection.recv(4096):
                pass


class Launcher:
    """The process monitors are forked from. One per exec root; restarted when it has died."""

    def __init__(self, exec_root: Path, python: str | None, facts: Facts) -> None:
        """Callers use :meth:`spawn`."""
        self._exec_root = exec_root
        self._python = python
        self._lock = threading.Lock()
        self._started: launch.Started | None = None
        self._compiler = Compiler(exec_root / "seccomp")
        self.facts = facts

    @classmethod
    def spawn(cls, exec_root: Path, *, python: str | None = None) -> Launcher:
        """Find the launcher of ``exec_root`` or start one (about 50 ms).

        ``python``: interpreter to copy, this process's by default. A launcher left by another
        version of sampan is asked to end and replaced. Raises :class:`Unavailable`.
        """
        exec_root.mkdir(mode=0o711, parents=True, exist_ok=True)
        launcher = cls(exec_root, python, probe())
        with launcher._lock:
            launcher._ensure()
        return launcher

    def begin(self, outline: Outline) -> Making | None:
        """Have a process make what it can of a container before its plan is known; does not wait.

        Follow with :meth:`create`, or :meth:`Making.give_up`. None when no launcher is there:
        :meth:`create` starts one.
        """
        try:
            return _commission(launch.connect(self._exec_root, launch.SOCKET), outline)
        except OSError:
            return None

    def _commission(self, outline: Outline) -> Making:
        """As :meth:`begin`, by another launcher when there is none or it is dying."""
        try:
            return _commission(self._connect(), outline)
        except OSError:
            pass
        try:
            return _commission(self._connect(), outline)
        except OSError as error:
            raise Unavailable(f"the launcher does not answer: {error}") from error

    def create(self, request: CreateRequest, making: Making | None = None) -> Monitor:
        """Make a container; returns as soon as its namespaces exist. Init waits for ``start``.

        Set-up inside goes on meanwhile. ``making``: what :meth:`begin` returned for this request,
        done with in any case. Raises :class:`InvalidParameter` and :class:`Unsupported` for what
        the spec asks wrongly or the kernel lacks, :class:`Conflict` when the directory already has
        a monitor, :class:`StartFailed` otherwise. Nothing is left after an error.
        """
        try:
            sketch = outline(request)
            if making is not None and making.outline != sketch:
                making.give_up()  # it was made before somebody changed the request
                making = None
            making = making or self._commission(sketch)
            message, blob = orders.of_container(request, self.facts, self._compile)
            fds = [request.root] if request.runtime else []
        except BaseException:
            if making is not None:
                making.give_up()
            raise
        try:
            answer = _submit(making.connection, message, blob, fds)
        except (OSError, NotFound):
            # The launcher died, and its waiting maker with it. Undo what that began; once more.
            recover(request.directory)
            try:
                making = self._commission(sketch)
                answer = _submit(making.connection, message, blob, fds)
            except (OSError, NotFound, Unavailable) as error:
                recover(request.directory)
                raise StartFailed(f"the container's maker died: {error}") from error
        monitor = Monitor(request.directory, making.connection, answer, self.facts)
        monitor.warnings = tuple(message["plan"]["warnings"]) if "plan" in message else ()
        return monitor

    def close(self, *, stop: bool = False) -> None:
        """End the launcher if we started it, with ``stop`` in any case. Containers go on.

        The cgroup they have in common goes with the last of them.
        """
        with self._lock:
            if stop:
                self._stop()
            if self._started is not None:
                self._started.end()
                self._started = None
        cgroup.remove_empty(self.facts.layout, DEFAULT_PARENT)

    def _compile(self, profile: oci.Seccomp) -> Filter:
        with self._lock:
            return self._compiler.compile(profile)

    def _connect(self) -> socket.socket:
        """A connection to the launcher, which is started again if it has died."""
        with self._lock:
            try:
                return launch.connect(self._exec_root, launch.SOCKET)
            except OSError:
                self._ensure()
            try:
                return launch.connect(self._exec_root, launch.SOCKET)
            except OSError as error:
                raise Unavailable(f"the launcher does not answer: {error}") from error

    def _ensure(self) -> None:
        """Have a launcher of this very code, under a lock other processes take as well."""
        if self._started is not None and self._started.child.poll() is not None:
            self._started.end()
            self._started = None
        with open(self._exec_root / "launcher.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                found = _identify(self._exec_root)
            except (OSError, Corrupt):
                found = None
            if found is not None and found["version"] == fingerprint():
                return
            if found is not None:
                self._stop()
            if self._started is not None:
                self._started.kill()
                self._started = None
            self._started = launch.start(self._exec_root, self._python)

    def _stop(self) -> None:
        try:
            pid = _identify(self._exec_root)["pid"]
            pidfd = os.pidfd_open(pid)
        except (OSError, Corrupt):
            return
        try:
            # It may have died and its number been reused: ask again before it is signalled.
            if _identify(self._exec_root)["pid"] == pid:
                signals.pidfd_send_signal(pidfd, signals.SIGTERM)
                select.select([pidfd], [], [], 5)
        except (OSError, Corrupt):
            return
        finally:
            os.close(pidfd)


def _commission(connection: socket.socket, outline: Outline) -> Making:
    try:
        send_frame(connection, outline.message())
    except OSError:
        connection.close()
        raise
    return Making(outline, connection)


def _submit(
    connection: socket.socket, message: Message, blob: bytes, fds: Sequence[int]
) -> Message:
    """Send a request to a maker; its answer. The connection is closed when there is none."""
    try:
        send_frame(connection, message, blob, fds)
        return answer_of(connection)
    except BaseException:
        connection.close()
        raise


def events(stream: socket.socket) -> Iterator[dict[str, object]]:
    """The events of :meth:`Monitor.watch`, decoded, for blocking callers."""
    with stream.makefile("rb") as lines:
        for line in lines:
            yield json.loads(line)


def _identify(exec_root: Path) -> Message:
    with launch.connect(exec_root, launch.SOCKET) as connection:
        connection.settimeout(_ANSWER_SECONDS)
        send_frame(connection, {"op": "identify"})
        answer, _, _ = receive_frame(connection)
    if answer is None:
        raise Corrupt("the launcher does not say who it is")
    return answer
