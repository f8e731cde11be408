"""The mounts of a mount namespace, as proc_pid_mountinfo(5) lists them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import NamedTuple

_OCTAL = re.compile(r"\\([0-7]{3})")  # of space, tab, newline and backslash


class Entry(NamedTuple):
    """One line. ``kinds``: names of its optional fields, which tell its propagation; ``options``:
    those of its file system."""

    mount_id: int
    root: str
    point: str
    kinds: frozenset[str]
    fstype: str
    options: str


def own() -> str:
    """The file of the calling thread's mount namespace. Raises :class:`OSError`."""
    with open("/proc/thread-self/mountinfo", "rb") as file:
        return os.fsdecode(file.read())


def entries(text: str) -> Iterator[Entry]:
    """The mounts in the text of such a file; lines of another form are left out (pure)."""
    for line in text.split("\n"):
        left, separator, right = line.partition(" - ")
        fields, tail = left.split(" "), right.split(" ")
        if not separator or len(fields) < 6 or len(tail) < 3 or not fields[0].isdecimal():
            continue
        yield Entry(
            mount_id=int(fields[0]),
            root=_unescape(fields[3]),
            point=_unescape(fields[4]),
            kinds=frozenset(field.partition(":")[0] for field in fields[6:]),
            fstype=tail[0],
            options=tail[2],
        )


def _unescape(text: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)
