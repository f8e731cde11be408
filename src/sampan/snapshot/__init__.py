"""Snapshots: file system trees stacked on one another, as mounts that somebody else performs.

The life of a snapshot (containerd's core/snapshots tells the same story)::

    image layer:   prepare("unpack-1", parent) → write through mounts → commit(chain_id, …)
    container:     prepare(container_id, chain_id) → mounts(container_id) … → remove(container_id)
    reading:       view("look-7", chain_id)     → mounts("look-7")        → remove("look-7")

* An *active* snapshot can be written to; a *view* cannot; a *committed* one never changes again
  and is the only kind that can be a parent.
* Keys are strings of at most 512 characters, unique over all kinds: container ids for containers,
  chain ids (``sha256:…``) for image layers.
* No snapshotter ever mounts. :func:`sampan.snapshot.rootfs.detached_mount` turns the mounts into
  a descriptor for the engine's own reading; the runtime performs them in the container.
* A crash leaves either the snapshot or a directory without one, which :meth:`Snapshotter.sweep`
  removes. Metadata is written last on creation and removed first.
* Committing waits for no disk: :meth:`Snapshotter.sync` does, afterwards and for all at once. A
  power failure before it takes the committed snapshot, never a part of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from sampan.model.mount import Mount

#: A label of an active snapshot that need not survive a power failure (``docker run --rm``, a step
#: of a build): where the driver can, no fsync(2) of its writer waits for the disk, and unmounting
#: flushes nothing. Committing such a snapshot makes it durable first.
VOLATILE = "sampan.volatile"


class Kind(StrEnum):
    """What may be done with a snapshot."""

    ACTIVE = "active"
    VIEW = "view"
    COMMITTED = "committed"


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotInfo:
    """One snapshot; ``created`` is in seconds since the epoch."""

    key: str
    kind: Kind
    parent: str | None = None
    created: float = 0.0
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a snapshot itself costs, its parents not counted.

    ``size`` is in bytes as du(1) counts blocks, hard links once; ``inodes`` a number.
    """

    size: int
    inodes: int


class Snapshotter(Protocol):
    """Makes, finds and removes snapshots. Every method may be called from any thread."""

    @property
    def name(self) -> str:
        """The driver's name as ``docker info`` shows it (``overlay2``-like)."""
        ...

    @property
    def rebases(self) -> bool:
        """Whether :meth:`commit` takes a parent for what was prepared without one."""
        ...

    def prepare(
        self, key: str, parent: str | None = None, labels: Mapping[str, str] | None = None
    ) -> tuple[Mount, ...]:
        """A new active snapshot on top of committed ``parent``; returns its mounts.

        Raises Conflict when ``key`` exists, NotFound when ``parent`` does not, InvalidParameter
        when ``parent`` is not committed or ``key`` is no key.
        """
        ...

    def view(
        self, key: str, parent: str, labels: Mapping[str, str] | None = None
    ) -> tuple[Mount, ...]:
        """A new read-only snapshot of committed ``parent``; errors as :meth:`prepare`."""
        ...

    def mounts(self, key: str) -> tuple[Mount, ...]:
        """The mounts of an active snapshot or view, the same each time; asked for before each use.

        The first has destination ``""``. Raises NotFound; InvalidParameter when committed.
        """
        ...

    def commit(self, name: str, key: str, *, parent: str | None = None) -> None:
        """Turn active ``key`` into committed ``name``; ``key`` is gone afterwards.

        ``parent`` rebases a snapshot prepared without one, so that layers unpack in parallel;
        drivers that copy raise Unsupported for it. Raises Conflict when ``name`` exists (the
        caller then removes ``key``), NotFound when ``key`` does not, InvalidParameter when it is
        not active, what the disk raises. A :data:`VOLATILE` one is on the disk before its record
        says that it is committed.
        """
        ...

    def remove(self, key: str) -> None:
        """Remove a snapshot of any kind.

        Raises NotFound, and Conflict when another snapshot's parent is ``key``. The snapshot is
        gone when this returns; its bytes at the latest after the next :meth:`sweep`.
        """
        ...

    def limit(self, key: str, size: int) -> None:
        """Let what is written to active ``key``, just prepared, take at most ``size`` bytes.

        Raises NotFound; Unsupported, saying why, where the driver or the file system cannot.
        """
        ...

    def stat(self, key: str) -> SnapshotInfo:
        """What is recorded about ``key``; raises NotFound."""
        ...

    def exists(self, key: str) -> bool:
        """Whether there is a snapshot ``key``."""
        ...

    def usage(self, key: str) -> Usage:
        """What ``key`` itself costs; walks the tree of an active one. Raises NotFound."""
        ...

    def walk(self) -> Iterator[SnapshotInfo]:
        """Every snapshot, parents before children."""
        ...

    def sweep(self) -> int:
        """Remove directories no snapshot refers to; returns how many. Idempotent."""
        ...

    def sync(self) -> None:
        """Make everything committed so far survive a power failure (syncfs(2)).

        What was committed after the last one is gone when the machine comes back from a failure:
        neither :meth:`exists` nor :meth:`walk` tells of it. Blocking; raises what the disk raises.
        """
        ...


__all__ = ["VOLATILE", "Kind", "SnapshotInfo", "Snapshotter", "Usage"]
