"""The daemon's process id in a file, for service managers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sampan.content.atomic import atomic_write
from sampan.errors import Conflict


@contextmanager
def pidfile(path: Path) -> Iterator[None]:
    """Hold ``path``; raises :class:`Conflict` while the process named in it lives.

    The file is removed at the end if it is still ours.
    """
    mine = str(os.getpid())
    other = _read(path)
    if other and other != mine and _running(other):
        raise Conflict(f"process with PID {other} is still running (see {path})")
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, mine.encode(), mode=0o644, durable=False)
    try:
        yield
    finally:
        if _read(path) == mine:
            with suppress(FileNotFoundError):
                path.unlink()


def _running(pid: str) -> bool:
    """Whether the process lives; a zombie (proc_pid_stat(5)) only waits for its parent."""
    try:
        stat = Path("/proc", pid, "stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
    state = stat.rpartition(b")")[2].split()[0]  # the name before it may hold anything
    return state not in (b"Z", b"X")


def _read(path: Path) -> str:
    try:
        text = path.read_text(encoding="ascii", errors="replace").strip()
    except FileNotFoundError:
        return ""
    return text if text.isdecimal() else ""
