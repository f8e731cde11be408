"""Snapshots as whole copies: for file systems that overlay cannot stack on."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from sampan.errors import InvalidParameter, Unsupported, storage_error
from sampan.layer.apply import apply
from sampan.layer.diff import diff_trees
from sampan.layer.model import Destination, Whiteouts
from sampan.layer.stream import Chunks
from sampan.layer.tree import DIRECTORY_FLAGS, portable_xattrs
from sampan.model.mount import Mount
from sampan.snapshot import Kind, SnapshotInfo, Usage
from sampan.snapshot.records import Record, Records


class CopySnapshotter:
    """A :class:`~sampan.snapshot.Snapshotter` below directory ``root``; one process owns a root."""

    name = "vfs"
    rebases = False

    def __init__(self, root: Path) -> None:
        self.root = root
        try:
            self._records = Records(root)
        except OSError as error:
            raise storage_error(error, f"opening the snapshots in {root}") from error

    def prepare(
        self, key: str, parent: str | None = None, labels: Mapping[str, str] | None = None
    ) -> tuple[Mount, ...]:
        """See :meth:`sampan.snapshot.Snapshotter.prepare`; costs a copy of the parent."""

        def fill(path: Path) -> None:
            path.mkdir(mode=0o755)
            path.chmod(0o755)
            if parent is not None:
                copy_tree(self.root / self._records.get(parent).number, path)

        return self._mounts(self._records.create(key, Kind.ACTIVE, parent, labels, fill))

    def view(
        self, key: str, parent: str, labels: Mapping[str, str] | None = None
    ) -> tuple[Mount, ...]:
        """See :meth:`sampan.snapshot.Snapshotter.view`; shares the parent's directory."""
        record = self._records.create(
            key, Kind.VIEW, parent, labels, lambda path: path.mkdir(mode=0o755)
        )
        return self._mounts(record)

    def mounts(self, key: str) -> tuple[Mount, ...]:
        """See :meth:`sampan.snapshot.Snapshotter.mounts`."""
        record = self._records.get(key)
        if record.info.kind is Kind.COMMITTED:
            raise InvalidParameter(f"snapshot {key} is committed: it has no mounts of its own")
        return self._mounts(record)

    def _mounts(self, record: Record) -> tuple[Mount, ...]:
        number, access = record.number, "rw"
        if record.info.kind is Kind.VIEW:
            number, access = self._records.get(record.info.parent or "").number, "ro"
        return (Mount(type="bind", source=str(self.root / number), options=("bind", access)),)

    def commit(self, name: str, key: str, *, parent: str | None = None) -> None:
        """See :meth:`sampan.snapshot.Snapshotter.commit`; ``parent`` is Unsupported."""
        if parent is not None:
            raise Unsupported(f"the {self.name} snapshotter cannot put a layer on another parent")
        self._records.commit(name, key, None)

    def remove(self, key: str) -> None:
        """See :meth:`sampan.snapshot.Snapshotter.remove`."""
        self._records.remove(key)

    def limit(self, key: str, size: int) -> None:
        """See :meth:`sampan.snapshot.Snapshotter.limit`; a copy holds what it is a copy of."""
        self._records.get(key)
        raise Unsupported(f"--storage-opt size: the storage driver {self.name} limits no sizes")

    def stat(self, key: str) -> SnapshotInfo:
        """See :meth:`sampan.snapshot.Snapshotter.stat`."""
        return self._records.get(key).info

    def exists(self, key: str) -> bool:
        """See :meth:`sampan.snapshot.Snapshotter.exists`."""
        return self._records.exists(key)

    def usage(self, key: str) -> Usage:
        """See :meth:`sampan.snapshot.Snapshotter.usage`: the whole copy."""
        return self._records.usage(key)

    def walk(self) -> Iterator[SnapshotInfo]:
        """See :meth:`sampan.snapshot.Snapshotter.walk`."""
        return self._records.walk()

    def sweep(self) -> int:
        """See :meth:`sampan.snapshot.Snapshotter.sweep`."""
        return self._records.sweep()

    def sync(self) -> None:
        """See :meth:`sampan.snapshot.Snapshotter.sync`."""
        self._records.sync()


def copy_tree(source: Path, destination: Path) -> None:
    """Copy all of ``source`` with every attribute into the empty directory ``destination``.

    One implementation of what a tree consists of: the copy is a layer made and applied.
    """
    root = os.open(source, DIRECTORY_FLAGS)
    try:
        with Chunks(diff_trees(None, root)) as stream:
            apply(stream, Destination(root=destination, whiteouts=Whiteouts.LITERAL))
        status = os.fstat(root)
        os.chown(destination, status.st_uid, status.st_gid)
        os.chmod(destination, stat.S_IMODE(status.st_mode))
        for key, value in portable_xattrs(root, b".").items():
            os.setxattr(destination, key, value)
    finally:
        os.close(root)
