"""What a monitor is asked for and what it publishes, as values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sampan.model.mount import Mount
from sampan.model.oci import Process, Spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

MEBIBYTE = 1 << 20
#: The cgroup that holds those of containers which name none.
DEFAULT_PARENT = "/sampan"


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
    ``linux.cgroupsPath`` absent means ``/sampan/<container_id>``; with ``systemd`` it is
    "slice:prefix:name", a scope that systemd makes.

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

    ``runtime``: another OCI runtime's program and the arguments it is always given; it makes the
    container's processes then, with ``process.user`` of the spec, and ``rootfs`` is not read:
    ``root`` is a descriptor of the mounts instead, attached nowhere, which stays the caller's.
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
    systemd: bool = False
    stall_timeout: float = 30.0
    runtime: tuple[str, ...] = ()
    root: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecRequest:
    """One more process in a running container.

    ``process`` is an OCI process; its ``terminal`` and ``consoleSize`` are not read. ``user`` and
    ``groups`` as in :class:`CreateRequest`. With none of ``stdin``, ``stdout``, ``stderr`` and no
    ``terminal`` the process is detached: its streams are /dev/null and no socket is returned.
    Capabilities (also ``--privileged``) are those of ``process.capabilities``; ``seccomp`` says
    whether the container's filter applies (Docker: not for a privileged exec).

    ``foreign``: another runtime makes the container's processes; ``user``, ``groups`` and
    ``seccomp`` are not read then, but ``process.user``, and what that runtime does.
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
    foreign: bool = False


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
    hierarchy, ``scope`` the systemd unit it is. ``status``: ``created`` or ``running``.
    ``runtime``: the command of who makes its processes, empty for us.
    """

    container_id: str
    pid: int
    start_time: int
    monitor_pid: int
    cgroup: str
    status: str
    scope: str = ""
    runtime: Sequence[str] = ()
