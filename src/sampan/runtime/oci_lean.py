"""start, kill and delete of ordinary containers, in a fraction of the time.

dockerd starts this program four times for one ``docker run``; three of those do next to nothing.
What they need is written by ``create`` into ROOT/<id>/live, a file so simple that nothing has to
be imported to read it (this module must import no more than ``os``, ``sys`` and built-in modules).
Whenever something is out of the ordinary a function returns None, having changed nothing that the
full implementation could not deal with, and that one takes over, with all its messages.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

    from sampan.runtime.oci_arguments import Parsed
    from sampan.runtime.oci_log import Log

NAME = "live"
_FILES = ("state.json", "config.json", NAME, "start.sock")
_START, _EXECUTING = b'{"kind":"start"}', b'{"kind":"executing"}'
_SEQPACKET, _AF_UNIX = 5, 1


class Live:
    """What ROOT/<id>/live says.

    ``freezer``: the file that tells whether it is frozen. ``special``: there are poststart or
    poststop hooks, or a listener for seccomp notifications. ``cgroups``: directories to remove.
    ``limits``: (RLIMIT_* number, soft, hard).
    """

    __slots__ = ("cgroups", "freezer", "limits", "pid", "shares_pids", "special", "start_time")

    def __init__(
        self,
        pid: int,
        start_time: int,
        shares_pids: bool,
        special: bool,
        freezer: str,
        limits: Sequence[tuple[int, int, int]],
        cgroups: Sequence[str],
    ) -> None:
        self.pid = pid
        self.start_time = start_time
        self.shares_pids = shares_pids
        self.special = special
        self.freezer = freezer
        self.limits = limits
        self.cgroups = cgroups

    def dump(self) -> bytes:
        """The file's content."""
        limits = ",".join(f"{number} {soft} {hard}" for number, soft, hard in self.limits)
        first = f"{self.pid} {self.start_time} {int(self.shares_pids)} {int(self.special)}"
        return os.fsencode("\n".join((first, limits, self.freezer, *self.cgroups)))

    @classmethod
    def parse(cls, data: bytes) -> Live:
        """The reverse. Raises ValueError."""
        first, limits, freezer, *cgroups = os.fsdecode(data).split("\n")
        pid, start_time, shares_pids, special = first.split(" ")
        rows = [tuple(int(word) for word in row.split(" ")) for row in limits.split(",") if row]
        return cls(
            int(pid),
            int(start_time),
            shares_pids == "1",
            special == "1",
            freezer,
            [(number, soft, hard) for number, soft, hard in rows],
            cgroups,
        )

    def alive(self) -> bool:
        """Whether the first process still runs (a zombie does not)."""
        try:
            fields = _read(f"/proc/{self.pid}/stat").rpartition(b")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return False
        return fields[0] not in (b"Z", b"X") and int(fields[19]) == self.start_time


def perform(command: str, root: str, parsed: Parsed, log: Log) -> int | None:
    """The exit status, or None: not ordinary, use the full implementation."""
    container_id = parsed.arguments[0]
    if "/" in container_id or container_id in ("", ".", ".."):
        return None
    directory = f"{root}/{container_id}"
    try:
        live = Live.parse(_read(f"{directory}/{NAME}"))
        if command == "start":
            return _start(live, root, container_id, log)
        if command == "kill":
            return _kill(live, directory, parsed)
        if command == "delete":
            return _delete(live, directory)
    except FileNotFoundError:
        if command == "delete" and parsed.switch("force") and not os.path.exists(directory):
            return 0
    except (OSError, ValueError):
        return None  # whatever it is, the full implementation says it properly
    return None


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 1 << 16)
    finally:
        os.close(fd)


def _frozen(live: Live) -> bool:
    return bool(live.freezer) and _read(live.freezer).strip() not in (b"THAWED", b"0")


def _start(live: Live, root: str, container_id: str, log: Log) -> int | None:
    directory = f"{root}/{container_id}"
    if live.special or not live.alive() or _frozen(live):
        return None
    import _socket

    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    connection = _socket.socket(_AF_UNIX, _SEQPACKET, 0)
    if live.limits and not _set_limits(live):
        return None
    connection.connect(f"/proc/self/fd/{fd}/start.sock")
    connection.send(_START)
    # As spawn.wait_started: "executing", then the end, when execve(2) worked.
    answer, last = connection.recv(1 << 16), b""
    while answer:
        last, answer = answer, connection.recv(1 << 16)
    if last != _EXECUTING:
        _give_up(root, container_id, log, last)
    os.unlink(f"{directory}/start.sock")
    return 0


def _set_limits(live: Live) -> bool:
    """False when one cannot be set as wanted, which takes more thought."""
    import resource

    try:
        for number, soft, hard in live.limits:
            resource.prlimit(live.pid, number, (soft, hard))
    except (OSError, ValueError):
        return False
    return True


def _give_up(root: str, container_id: str, log: Log, answer: bytes) -> NoReturn:
    """Init says why the program does not run: the container has ended."""
    import json

    from sampan.errors import StartFailed
    from sampan.runtime import oci_control, oci_state

    runtime = oci_control.Runtime(oci_state.Store(root), log)
    record = runtime.store.load(container_id)
    oci_control.end(runtime, record)
    oci_control.destroy(runtime, record)
    message = json.loads(answer or b'{"message": "the first process died"}')
    raise StartFailed(
        f"sampan-runtime start failed: unable to start container process: {message.get('message')}"
    )


def _kill(live: Live, directory: str, parsed: Parsed) -> int | None:
    import _signal  # type: ignore[import-not-found]

    text = parsed.arguments[1] if len(parsed.arguments) > 1 else "TERM"
    name = text.upper()
    found = (
        int(text)
        if text.isdecimal()
        else getattr(_signal, name if name.startswith("SIG") else f"SIG{name}", None)
    )
    if not isinstance(found, int) or live.shares_pids or parsed.switch("all"):
        return None
    pidfd = os.pidfd_open(live.pid)
    if not live.alive() or _frozen(live):
        return None
    _signal.pidfd_send_signal(pidfd, found)
    return 0


def _delete(live: Live, directory: str) -> int | None:
    if live.special or live.shares_pids or live.alive():
        return None
    for path in live.cgroups:
        try:
            os.rmdir(path)
        except FileNotFoundError:
            continue
    for name in _FILES:
        try:
            os.unlink(f"{directory}/{name}")
        except FileNotFoundError:
            continue
    os.rmdir(directory)
    return 0
