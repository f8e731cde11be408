"""The daemon's process id in a file, for service managers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sampan.content.atomic import atomic_write
from sampan.errors import Conflict
from sampan.kernel.process import stat_fields


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
        state = stat_fields(pid)[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in (b"Z", b"X")


def _read(path: Path) -> str:
    try:
        text = path.read_text(encoding="ascii", errors="replace").strip()
    except FileNotFoundError:
        return ""
    return text if text.isdecimal() else ""
