"""Durable replacement of a file: the one way anything in sampan is written to last.

temp file in the same directory, fsync, rename over the target, fsync of the directory
(rename(2), fsync(2)). After a crash the target is the old file or the new one, whole.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

#: Names of unfinished temporary files start so; a sweep may remove them when idle.
TEMPORARY_PREFIX = ".tmp-"


def atomic_write(path: Path, data: bytes, *, mode: int = 0o600, durable: bool = True) -> None:
    """Replace or create ``path`` with ``data`` and permission bits ``mode``.

    ``durable=False`` leaves out both fsyncs, for files that need not survive a power failure
    (anything on a tmpfs). Raises :class:`OSError` with ``path``; then nothing is left behind.
    """
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        try:
            os.fchmod(fd, mode)  # the umask does not get a say
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            if durable:
                os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        fsync_directory(path.parent)


def fsync_directory(path: Path) -> None:
    """Make the names in directory ``path`` durable (fsync(2), "NOTES")."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
