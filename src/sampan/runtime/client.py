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
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from sampan import errors
from sampan.errors import Corrupt, NotFound, StartFailed, Unavailable, Unsupported
from sampan.kernel import cgroup
from sampan.kernel.facts import Facts, probe
from sampan.kernel.process import start_time
from sampan.kernel.seccomp import Compiler
from sampan.model.mount import Mount
from sampan.model.oci import Process, Spec
from sampan.runtime import launch, records
from sampan.runtime.channel import Message, receive_frame, send_frame
from sampan.runtime.operation import Value
from sampan.runtime.plan import PlanOptions, plan, plan_exec
from sampan.runtime.plan_codec import encode
from sampan.runtime.process_plan import ProcessOptions
from sampan.runtime.version import fingerprint

MEBIBYTE = 1 << 20
_ANSWER_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """Where and how a container's output is logged.

    ``driver`` is ``json-file`` (Docker's format, byte for byte), ``local`` (Docker's binary
    format) or ``none``. ``path`` is the current file; rotated ones get ``.1``, ``.2``, ...
    (with ``.gz`` when ``compress``). ``max_size`` in bytes, 0 for no bound; ``max_file`` counts
    the current one too. ``attrs`` is written with every json-file line when not empty. ``mode``
    (``blocking``, ``non-blocking``) changes nothing: writing a file blocks on nobody.
    """

    driver: str = "json-file"
    path: str = ""
    max_size: int = 10 * MEBIBYTE
    max_file: int = 3
    compress: bool = False
    attrs: Mapping[str, str] = field(default_factory=dict)
    mode: str = "blocking"


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateRequest:
    """A container to be made.

    ``spec``: what ``config.json`` would hold. ``root.path`` is not read (``root.readonly`` is);
    ``process.terminal`` and ``consoleSize`` are not read: the fields here count.
    ``linux.cgroupsPath`` absent means ``/sampan/<container_id>``.

    ``rootfs``: performed in order inside the container's own mount namespace; the first has
    destination "" and is the root. With a new user namespace in ``spec``, layers and the upper
    directory are idmapped with its mappings: their files are owned by unshifted ids on disk.

    ``directory``: exec_root/containers/<id>; made (0700) if missing.

    ``user``: Docker's ``USER`` syntax (``name|uid[:group|gid]``), resolved in the container's own
    /etc/passwd and /etc/group; overrides ``process.user`` but for ``umask``. None: the spec's
    numbers count. ``groups``: more groups, by name or number (``--group-add``).

    ``console_size``: (height, width) in characters. ``open_stdin`` keeps stdin open for attach
    clients; without it stdin is /dev/null. ``stdin_once``: stdin ends when the first client that
    attached to it ends its side.

    ``init``: run the program below our own reaper as PID 1 (``docker run --init``).

    ``stall_timeout``: seconds an attach client may take no byte at all, while its buffer is full,
    before it is dropped; until then the container's output waits for it.
    """

    container_id: str
    spec: Spec
    rootfs: tuple[Mount, ...]
    directory: Path
    log: LogSettings = LogSettings(driver="none")
    terminal: bool = False
    console_size: tuple[int, int] | None = None
    open_stdin: bool = False
    stdin_once: bool = False
    user: str | None = None
    groups: tuple[str, ...] = ()
    init: bool = False
    stall_timeout: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecRequest:
    """One more process in a running container.

    ``process`` is an OCI process; its ``terminal`` and ``consoleSize`` are not read. ``user`` and
    ``groups`` as in :class:`CreateRequest`. With none of ``stdin``, ``stdout``, ``stderr`` and no
    ``terminal`` the process is detached: its streams are /dev/null and no socket is returned.
    Capabilities (also ``--privileged``) are those of ``process.capabilities``; ``seccomp`` says
    whether the container's filter applies (Docker: not for a privileged exec).
    """

    exec_id: str
    process: Process
    terminal: bool = False
    console_size: tuple[int, int] | None = None
    stdin: bool = False
    stdout: bool = True
    stderr: bool = True
    user: str | None = None
    groups: tuple[str, ...] = ()
    seccomp: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitRecord:
    """How a container ended.

    ``code`` as Docker shows it: the exit status, or 128 + ``signal``. ``at``: nanoseconds since the
    epoch. ``error``: one sentence when it did not end by itself (set-up failed, monitor killed).
    """

    code: int
    signal: int = 0
    oom: bool = False
    at: int = 0
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """What a monitor published about its container (init.json).

    ``start_time``: field 22 of /proc/<pid>/stat, in clock ticks. ``cgroup``: its path in every
    hierarchy. ``status``: ``created`` or ``running``.
    """

    container_id: str
    pid: int
    start_time: int
    monitor_pid: int
    cgroup: str
    status: str


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
        connection = _open(directory)
        try:
            answer = _ask(connection, {"op": "status"})
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
        connection = _open(self.directory)
        return _stream(
            connection, {"op": "attach", "stdin": stdin, "stdout": stdout, "stderr": stderr}
        )

    def exec(self, request: ExecRequest) -> tuple[socket.socket | None, int]:
        """Run one more process; returns (its stream as of :meth:`attach` or None, its pid).

        Raises :class:`CommandNotFound`, :class:`CommandNotExecutable`, :class:`StartFailed`,
        :class:`Conflict` when the container does not run or the exec id is taken. The exit is told
        by :meth:`watch`, and by :meth:`exec_exit` for those that were not watching.
        """
        if self._facts is None:
            self._facts = probe()
        made = plan_exec(
            request.process,
            self._facts,
            container_id=request.exec_id,
            options=ProcessOptions(
                terminal=request.terminal,
                user=request.user,
                groups=request.groups,
                keyring="",
                seccomp=request.seccomp,
            ),
            console_size=request.console_size,
        )
        value, _ = encode(made)
        message = {
            "op": "exec",
            "exec_id": request.exec_id,
            "plan": value,
            "seccomp": request.seccomp,
            "stdin": request.stdin,
            "stdout": request.stdout,
            "stderr": request.stderr,
        }
        connection = _open(self.directory)
        try:
            answer = _ask(connection, message)
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
        """Set a terminal's size. Raises :class:`Conflict` when there is no terminal."""
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
        return _stream(_open(self.directory), {"op": "watch"})

    def close(self) -> None:
        """Close this connection; the container goes on. Idempotent."""
        self._connection.close()

    def _request(self, message: Message) -> Message:
        with self._lock:
            return _ask(self._connection, message)


class Launcher:
    """The process monitors are forked from. One per exec root; restarted when it has died."""

    def __init__(self, exec_root: Path, python: str | None, facts: Facts) -> None:
        """Callers use :meth:`spawn`."""
        self._exec_root = exec_root
        self._python = python
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
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

    def create(self, request: CreateRequest) -> Monitor:
        """Make a container; returns as soon as its namespaces exist. Init waits for ``start``.

        Set-up inside goes on meanwhile. Raises :class:`InvalidParameter` and :class:`Unsupported`
        for what the spec asks wrongly or the kernel lacks, :class:`Conflict` when the directory
        already has a monitor, :class:`StartFailed` otherwise. Nothing is left after an error.
        """
        message, blob = self._prepare(request)
        connection = self._connect()
        try:
            send_frame(connection, message, blob)
            answer = _answer(connection)
        except OSError as error:
            connection.close()
            raise StartFailed(f"the launcher died: {error}") from error
        except BaseException:
            connection.close()
            raise
        monitor = Monitor(request.directory, connection, answer, self.facts)
        monitor.warnings = tuple(message["plan"]["warnings"])
        return monitor

    def close(self, *, stop: bool = False) -> None:
        """Forget the launcher; with ``stop`` end it as well. Containers go on either way."""
        with self._lock:
            if stop:
                self._stop()
            if self._child is not None:
                self._child.poll()
                # A launcher that stays is nobody's child to wait for once we are gone.
                self._child.returncode = self._child.returncode or 0
                self._child = None

    def _prepare(self, request: CreateRequest) -> tuple[Message, bytes]:
        """The request as a message: planned here, so that mistakes in it cost no process."""
        linux = request.spec.get("linux") or {}
        with self._lock:
            profile = linux.get("seccomp")
            seccomp = self._compiler.compile(profile) if profile else None
        made = plan(
            request.spec,
            self.facts,
            container_id=request.container_id,
            rootfs=request.rootfs,
            options=PlanOptions(
                process=ProcessOptions(
                    terminal=request.terminal,
                    user=request.user,
                    groups=request.groups,
                    keyring=request.container_id,
                    reaper=request.init,
                ),
                console_size=request.console_size,
                state=_state(request),
            ),
            seccomp=seccomp,
        )
        if request.log.driver not in ("json-file", "local", "none"):
            raise Unsupported(f"log driver {request.log.driver!r}")
        value, blob = encode(made)
        log = request.log
        message = {
            "op": "create",
            "plan": value,
            "directory": str(request.directory),
            "open_stdin": request.open_stdin,
            "stdin_once": request.stdin_once,
            "stall_timeout": request.stall_timeout,
            "log": {
                "driver": log.driver,
                "path": log.path,
                "max_size": log.max_size,
                "max_file": log.max_file,
                "compress": log.compress,
                "attrs": dict(log.attrs),
            },
        }
        return message, blob

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
        if self._child is not None and self._child.poll() is not None:
            self._child = None
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
            _, self._child = launch.start(self._exec_root, self._python)

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


def read_exit(directory: Path) -> ExitRecord | None:
    """The exit record of a container, None while there is none."""
    values = records.read(directory, records.EXIT)
    return None if values is None else ExitRecord(**values)


def read_live(directory: Path) -> Live | None:
    """What the monitor published, None when the container never came to be."""
    values = records.read(directory, records.INIT)
    return None if values is None else Live(**values)


def recover(directory: Path) -> ExitRecord | None:
    """End what a killed monitor left and record it; None when the monitor is alive.

    Kills the container's processes (by pidfd and cgroup), removes its cgroups and sockets, writes
    ``exit.json`` with code 137 unless there is one. Idempotent.
    """
    try:
        _open(directory).close()
    except NotFound:
        pass
    else:
        return None
    live = read_live(directory)
    if live is not None:
        _end(live)
    record = read_exit(directory)
    if record is None:
        record = ExitRecord(
            code=137,
            signal=9,
            at=time.time_ns(),
            error="the monitor of the container was killed",
        )
        records.write(directory, records.EXIT, asdict(record))
    leftovers = (records.SOCKET, f"{records.INIT}.new", f"{records.EXIT}.new", records.INIT)
    records.remove(directory, *leftovers)
    return record


def events(stream: socket.socket) -> Iterator[dict[str, object]]:
    """The events of :meth:`Monitor.watch`, decoded, for blocking callers."""
    with stream.makefile("rb") as lines:
        for line in lines:
            yield json.loads(line)


def _end(live: Live) -> None:
    """Kill what runs in a container without a monitor, and remove its cgroups."""
    with contextlib.suppress(OSError):
        pidfd = os.pidfd_open(live.pid) if live.pid else -1
        if pidfd >= 0:
            try:
                if start_time(live.pid) == live.start_time:
                    signals.pidfd_send_signal(pidfd, signals.SIGKILL)
                    select.select([pidfd], [], [], 5)
            finally:
                os.close(pidfd)
    if live.cgroup:
        layout = cgroup.probe()
        cgroup.kill(layout, live.cgroup)
        cgroup.remove(layout, live.cgroup)


def _state(request: CreateRequest) -> dict[str, Value]:
    """The OCI state hooks are given (runtime.md "State"), but for pid and status."""
    annotations: dict[str, Value] = {**(request.spec.get("annotations") or {})}
    return {
        "ociVersion": request.spec.get("ociVersion", "1.2.0"),
        "id": request.container_id,
        "bundle": str(request.directory),
        "annotations": annotations,
    }


def _open(directory: Path) -> socket.socket:
    try:
        return launch.connect(directory, records.SOCKET)
    except OSError as error:
        raise NotFound(f"no monitor serves {directory}: {error.strerror}") from error


def _identify(exec_root: Path) -> Message:
    with launch.connect(exec_root, launch.SOCKET) as connection:
        connection.settimeout(_ANSWER_SECONDS)
        send_frame(connection, {"op": "identify"})
        answer, _, _ = receive_frame(connection)
    if answer is None:
        raise Corrupt("the launcher does not say who it is")
    return answer


def _stream(connection: socket.socket, message: Message) -> socket.socket:
    """Ask for what turns the connection into a stream."""
    try:
        _ask(connection, message)
    except BaseException:
        connection.close()
        raise
    return connection


def _ask(connection: socket.socket, message: Message) -> Message:
    try:
        send_frame(connection, message)
        return _answer(connection)
    except OSError as error:
        raise NotFound(f"the monitor is gone: {error.strerror}") from error


def _answer(connection: socket.socket) -> Message:
    answer, _, _ = receive_frame(connection)
    if answer is None:
        raise NotFound("the monitor is gone")
    name = answer.get("error")
    if name is not None:
        kind = getattr(errors, str(name), StartFailed)
        raise kind(answer["message"])
    return answer
