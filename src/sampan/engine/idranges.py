"""Ranges of the host's ids for user namespaces: no two containers ever share one.

The rows in the state say who has which; this table is what they say, in memory. It is the loop's
thread's alone.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sampan.engine.state import Statement
from sampan.engine.userns import DEFAULT_SIZE, Lease
from sampan.errors import Conflict
from sampan.model.idmap import IdMap

#: (first id, count)
Span = tuple[int, int]

#: Beyond what systemd's and shadow's allocators hand out, below 2^31 (systemd.io/UIDS-GIDS).
_FIRST, _LAST = 0x70000000, 0x7FFE0000


@dataclass(frozen=True, slots=True)
class Pool:
    """Ids that may be given away, in the order they are tried."""

    uids: tuple[Span, ...]
    gids: tuple[Span, ...]


def default_pool(data_root: Path) -> Pool:
    """Ids nobody else is told to use; engines of different roots begin at different places."""
    places = (_LAST - _FIRST) // DEFAULT_SIZE
    start = _FIRST + zlib.crc32(bytes(data_root)) % places * DEFAULT_SIZE
    spans = ((start, _LAST - start), (_FIRST, start - _FIRST))
    return Pool(spans, spans)


class IdRanges:
    """Who has which ids. ``reserved``: the daemon's own map, shared by many."""

    def __init__(self, pool: Pool, reserved: IdMap | None) -> None:
        self._pool = pool
        self._leases: dict[str, Lease] = {}
        self._reserved = reserved

    def add(self, container_id: str, lease: Lease) -> None:
        """What a row says."""
        self._leases[container_id] = lease

    def take(self, container_id: str, size: int) -> Lease:
        """``size`` ids nobody has. Raises Conflict when there are none left."""
        uid, gid = self._free_uid(size), self._free_gid(size)
        if uid is None or gid is None:
            raise Conflict(
                f"no range of {size} unused ids is left for a user namespace: remove a container "
                "that has one"
            )
        lease = self._leases[container_id] = Lease(uid, gid, size)
        return lease

    def give(self, container_id: str) -> None:
        """Take a range back. Idempotent."""
        self._leases.pop(container_id, None)

    def _free_uid(self, size: int) -> int | None:
        reserved = self._reserved.uids if self._reserved is not None else ()
        taken = [(lease.uid, lease.size) for lease in self._leases.values()]
        return _free(self._pool.uids, [*taken, *((row[1], row[2]) for row in reserved)], size)

    def _free_gid(self, size: int) -> int | None:
        reserved = self._reserved.gids if self._reserved is not None else ()
        taken = [(lease.gid, lease.size) for lease in self._leases.values()]
        return _free(self._pool.gids, [*taken, *((row[1], row[2]) for row in reserved)], size)


def _free(pool: Sequence[Span], taken: Iterable[Span], size: int) -> int | None:
    """The first place with ``size`` ids in a row that nobody has."""
    ordered = sorted(taken)
    for first, count in pool:
        position, end = first, first + count
        for start, length in ordered:
            if start >= end or position + size <= start:
                break
            position = max(position, start + length)
        if position + size <= end:
            return position
    return None


def insert_lease(container_id: str, lease: Lease) -> Statement:
    """The row of a container's range; it goes with the container's."""
    return (
        "INSERT INTO id_ranges (container, first_uid, first_gid, size) VALUES (?, ?, ?, ?)",
        (container_id, lease.uid, lease.gid, lease.size),
    )
