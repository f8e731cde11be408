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

import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sampan.model.mount import Mount
from sampan.model.oci import IDMapping, Process, Spec

MEBIBYTE = 1 << 20


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
    uid_mappings: tuple[IDMapping, ...] = ()
    gid_mappings: tuple[IDMapping, ...] = ()


class Monitor:
    """One control connection to the monitor of one container; methods may be called from threads.

    Attributes: ``pid`` of the container's first process, its ``start_time`` (clock ticks, field 22
    of /proc/pid/stat), ``warnings`` of the set-up (complete after :meth:`start`).
    """

    pid: int
    start_time: int
    warnings: tuple[str, ...]

    @classmethod
    def connect(cls, directory: Path) -> Monitor:
        """The monitor serving ``directory``. Raises :class:`NotFound` when it is gone."""
        raise NotImplementedError

    def start(self) -> None:
        """Wait for the set-up, let the program run; returns once it has been executed.

        Raises :class:`CommandNotFound`, :class:`CommandNotExecutable`, :class:`StartFailed`; the
        container and everything of it is gone then (an exit record says the same).
        """
        raise NotImplementedError

    def abort(self) -> None:
        """Before :meth:`start`: end init and undo everything. Idempotent."""
        raise NotImplementedError

    def attach(self, *, stdin: bool, stdout: bool, stderr: bool) -> socket.socket:
        """A stream to the container's standard streams; before :meth:`start` it sees every byte.

        Without a terminal, output comes in Docker's framing (stream 1|2, three zeros, length as
        big-endian u32); with one it is raw. What is sent is stdin; ``shutdown(SHUT_WR)`` ends it.
        The peer closes when the output has ended.
        """
        raise NotImplementedError

    def exec(self, request: ExecRequest) -> tuple[socket.socket | None, int]:
        """Run one more process; returns (its stream as of :meth:`attach` or None, its pid).

        Raises :class:`CommandNotFound`, :class:`CommandNotExecutable`, :class:`StartFailed`,
        :class:`Conflict` when the container does not run or the exec id is taken. The exit is told
        by :meth:`watch`, and by :meth:`exec_exit` for those that were not watching.
        """
        raise NotImplementedError

    def exec_exit(self, exec_id: str) -> int | None:
        """Exit code of an ended exec, None while it runs. Raises :class:`NotFound`.

        The monitor remembers the last 256 that ended.
        """
        raise NotImplementedError

    def resize(self, height: int, width: int, exec_id: str | None = None) -> None:
        """Set a terminal's size. Raises :class:`Conflict` when there is no terminal."""
        raise NotImplementedError

    def signal(self, signal: int, exec_id: str | None = None) -> None:
        """Send a signal to the first process, or to an exec's. Raises :class:`NotFound`."""
        raise NotImplementedError

    def close_stdin(self, exec_id: str | None = None) -> None:
        """End the process's standard input."""
        raise NotImplementedError

    def watch(self) -> socket.socket:
        """A stream of events, one JSON object a line; end of stream: the monitor is gone.

        First the present state: ``{"event":"state","status":"created"|"running","pid":N,
        "execs":[{"exec_id":..,"pid":..}]}``, then ``{"event":"started"}``, ``{"event":"oom"}``,
        ``{"event":"exec-exit","exec_id":..,"code":N}``, and last ``{"event":"exit","code":N,
        "signal":N,"oom":bool,"at":nanoseconds,"error":".."}``, sent when the record is durable and
        cgroups are removed.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Close this connection; the container goes on. Idempotent."""
        raise NotImplementedError


class Launcher:
    """The process monitors are forked from. One per exec root; restarted when it has died."""

    @classmethod
    def spawn(cls, exec_root: Path, *, python: str | None = None) -> Launcher:
        """Find the launcher of ``exec_root`` or start one (about 50 ms).

        ``python``: interpreter to copy, this process's by default. A launcher left by another
        version of sampan is asked to end and replaced. Raises :class:`Unavailable`.
        """
        raise NotImplementedError

    def create(self, request: CreateRequest) -> Monitor:
        """Make a container; returns as soon as its namespaces exist. Init waits for ``start``.

        Set-up inside goes on meanwhile. Raises :class:`InvalidParameter` and :class:`Unsupported`
        for what the spec asks wrongly or the kernel lacks, :class:`Conflict` when the directory
        already has a monitor, :class:`StartFailed` otherwise. Nothing is left after an error.
        """
        raise NotImplementedError

    def close(self, *, stop: bool = False) -> None:
        """Forget the launcher; with ``stop`` end it as well. Containers go on either way."""
        raise NotImplementedError


def read_exit(directory: Path) -> ExitRecord | None:
    """The exit record of a container, None while there is none."""
    raise NotImplementedError


def read_live(directory: Path) -> Live | None:
    """What the monitor published, None when the container never came to be."""
    raise NotImplementedError


def recover(directory: Path) -> ExitRecord | None:
    """End what a killed monitor left and record it; None when the monitor is alive.

    Kills the container's processes (by pidfd and cgroup), removes its cgroups and sockets, writes
    ``exit.json`` with code 137 unless there is one. Idempotent.
    """
    raise NotImplementedError


def events(stream: socket.socket) -> Iterator[dict[str, object]]:
    """The events of :meth:`Monitor.watch`, decoded, for blocking callers."""
    raise NotImplementedError
