"""Snapshots stacked by overlayfs: one directory each, shared by everything above it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from sampan.errors import InvalidParameter, storage_error
from sampan.model.mount import Mount
from sampan.snapshot import VOLATILE, Kind, SnapshotInfo, Usage, quota
from sampan.snapshot.records import Record, Records

#: overlayfs's own limit on stacked layers (fs/overlayfs/params.h, OVL_MAX_STACK).
MAX_LOWERS = 500
#: Marks in upper directories must be whiteouts and opaque directories alone, so that they read as
#: a layer: no redirects, no metadata-only copies, no index that ties an upper to its lowers.
_PLAIN = ("index=off", "metacopy=off", "redirect_dir=off")


class OverlaySnapshotter:
    """A :class:`~sampan.snapshot.Snapshotter` below directory ``root``; one process owns a root.

    Snapshots labelled :data:`~sampan.snapshot.VOLATILE` are mounted with ``volatile`` (Linux 5.10).
    """

    name = "overlay2"
    rebases = True

    def __init__(self, root: Path) -> None:
        self.root = root
        self._limits = threading.Lock()
        try:
            self._records = Records(root)
        except OSError as error:
            raise storage_error(error, f"opening the snapshots in {root}") from error

    def prepare(
        self, key: str, parent: str | None = None, labels: Mapping[str, str] | None = None
    ) -> tuple[Mount, ...]:
        """See :meth:`sampan.snapshot.Snapshotter.prepare`."""
        return self._new(key, Kind.ACTIVE, parent, labels)

    def view(
        self, key: str, parent: str, labels: Mapping[str, str] | None = None
    ) -> tuple[Mount, ...]:
        """See :meth:`sampan.snapshot.Snapshotter.view`."""
        return self._new(key, Kind.VIEW, parent, labels)

    def _new(
        self, key: str, kind: Kind, parent: str | None, labels: Mapping[str, str] | None
    ) -> tuple[Mount, ...]:
        lowers = self._records.chain(parent)
        if len(lowers) > MAX_LOWERS:
            raise InvalidParameter(f"max depth exceeded: overlayfs stacks {MAX_LOWERS} layers")

        def fill(path: Path) -> None:
            path.mkdir(mode=0o755)
            # The root's attributes come from the topmost lower: overlay shows the upper's own.
            if lowers:
                status = (self.root / lowers[0].number).stat()
                path.chmod(status.st_mode & 0o7777)
                if (status.st_uid, status.st_gid) != (0, 0):
                    os.chown(path, status.st_uid, status.st_gid)
            else:
                path.chmod(0o755)
            if kind is Kind.ACTIVE and lowers:
                (self._records.work / path.name).mkdir(mode=0o700)

        return self._mounts(self._records.create(key, kind, parent, labels, fill))

    def mounts(self, key: str) -> tuple[Mount, ...]:
        """See :meth:`sampan.snapshot.Snapshotter.mounts`."""
        record = self._records.get(key)
        if record.info.kind is Kind.COMMITTED:
            raise InvalidParameter(f"snapshot {key} is committed: it has no mounts of its own")
        return self._mounts(record)

    def _mounts(self, record: Record) -> tuple[Mount, ...]:
        parents = self._records.chain(record.info.parent)
        lowers = [str(self.root / parent.number) for parent in parents]
        own = str(self.root / record.number)
        options: tuple[str, ...]
        if record.info.kind is Kind.VIEW:
            if len(lowers) == 1:
                return (Mount(type="bind", source=lowers[0], options=("bind", "ro")),)
            options = (f"lowerdir={':'.join(lowers)}", *_PLAIN, "ro")
        elif not lowers:
            return (Mount(type="bind", source=own, options=("bind", "rw")),)
        else:
            work = self._records.work / record.number
            options = (
                f"lowerdir={':'.join(lowers)}",
                f"upperdir={own}",
                f"workdir={work}",
                *_PLAIN,
            )
            if VOLATILE in record.info.labels:
                # Overlay refuses an upper once mounted volatile until this mark is removed; we
                # made the promise not to care, so that it can be mounted again.
                _remove_mark(work / "work" / "incompat" / "volatile")
                options += ("volatile",)
        return (Mount(type="overlay", source="overlay", options=options),)

    def commit(self, name: str, key: str, *, parent: str | None = None) -> None:
        """See :meth:`sampan.snapshot.Snapshotter.commit`."""
        self._records.commit(name, key, parent)

    def remove(self, key: str) -> None:
        """See :meth:`sampan.snapshot.Snapshotter.remove`."""
        self._records.remove(key)

    def limit(self, key: str, size: int) -> None:
        """See :meth:`sampan.snapshot.Snapshotter.limit`.

        What overlay makes in its working directory is renamed into the upper one: both are of
        one project.
        """
        number = self._records.get(key).number
        mine = [path for path in (self.root / number, self._records.work / number) if path.exists()]
        with self._limits:
            quota.limit(
                mine,
                size,
                self._records.active(),
                first=quota.CONTAINERS,
                asked="--storage-opt size",
            )

    def stat(self, key: str) -> SnapshotInfo:
        """See :meth:`sampan.snapshot.Snapshotter.stat`."""
        return self._records.get(key).info

    def exists(self, key: str) -> bool:
        """See :meth:`sampan.snapshot.Snapshotter.exists`."""
        return self._records.exists(key)

    def usage(self, key: str) -> Usage:
        """See :meth:`sampan.snapshot.Snapshotter.usage`."""
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


def _remove_mark(path: Path) -> None:
    """Remove overlay's mark that ``path`` is (Documentation/filesystems/overlayfs, "Volatile")."""
    try:
        (path / "dirty").unlink(missing_ok=True)
        path.rmdir()
    except FileNotFoundError:
        return
