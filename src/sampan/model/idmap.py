"""Which ids of the host the ids inside a user namespace are (user_namespaces(7))."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

#: (first id inside, first id outside, count), as a line of /proc/<pid>/uid_map
Row: TypeAlias = tuple[int, int, int]
#: what an id that has no counterpart looks like (/proc/sys/kernel/overflowuid)
OVERFLOW = 65534


@dataclass(frozen=True, slots=True)
class IdMap:
    """The user and group ids of one user namespace."""

    uids: tuple[Row, ...]
    gids: tuple[Row, ...]

    @property
    def root(self) -> tuple[int, int] | None:
        """The host's ids of root inside; None when it has none."""
        return self.outside(0, 0)

    def outside(self, uid: int, gid: int) -> tuple[int, int] | None:
        """The host's ids of an owner inside; None when one of them has none."""
        found = outside(self.uids, uid), outside(self.gids, gid)
        return None if found[0] is None or found[1] is None else (found[0], found[1])

    def inside(self, uid: int, gid: int) -> tuple[int, int]:
        """What the host's ids look like inside."""
        return inside(self.uids, uid), inside(self.gids, gid)


def outside(rows: Sequence[Row], number: int) -> int | None:
    """The host's id of ``number`` inside, None when it is not mapped."""
    for first, start, count in rows:
        if first <= number < first + count:
            return start + number - first
    return None


def inside(rows: Sequence[Row], number: int) -> int:
    """What the host's id ``number`` looks like inside."""
    for first, start, count in rows:
        if start <= number < start + count:
            return first + number - start
    return OVERFLOW


def parse_rows(text: str) -> tuple[Row, ...]:
    """The rows of a /proc/<pid>/uid_map, read in the host's user namespace."""
    rows = []
    for line in text.splitlines():
        first, start, count = line.split()
        rows.append((int(first), int(start), int(count)))
    return tuple(rows)
