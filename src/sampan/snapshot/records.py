"""What a directory of snapshots knows about them: one small JSON file each, replaced atomically.

::

    root/<number>            the tree of one snapshot; short base-36 names, so that the options of
                             an overlay with many lower directories fit into one page (mount(2))
    root/.meta/<number>      its record; written after the tree exists, removed before it goes
    root/.work/<number>      overlay's work directory of an active snapshot
    root/.trash/<number>     a tree on its way out

Committing waits for no disk. A committed record tells which boot of the machine it is *unsettled*
since, until :meth:`Records.sync` has flushed the trees; of an earlier boot it is worth nothing, for
the power may have failed meanwhile, and its layer is unpacked again.
"""

from __future__ import annotations

import json
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from sampan.content.atomic import TEMPORARY_PREFIX, atomic_write
from sampan.errors import Conflict, InvalidParameter, NotFound, storage_error
from sampan.kernel.inodeflags import FS_TOPDIR_FL, add_flags
from sampan.kernel.syncfs import syncfs
from sampan.layer.removal import remove_tree
from sampan.layer.tree import DIRECTORY_FLAGS, walk
from sampan.snapshot import VOLATILE, Kind, SnapshotInfo, Usage

KEY_LIMIT = 512
#: names this run of the machine (random(4))
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A snapshot's directory ``number``, its description, and its usage once measured.

    ``unsettled`` is the boot during which it was committed, while its tree may not be on the disk.
    """

    number: str
    info: SnapshotInfo
    usage: Usage | None = None
    unsettled: str = ""


class Records:
    """The snapshots below ``root``; every method is atomic and may be called from any thread."""

    def __init__(self, root: Path, *, clock: Callable[[], float] = time.time) -> None:
        self.root = root
        self._boot = BOOT_ID.read_text().strip()
        self.meta, self.work, self.trash = root / ".meta", root / ".work", root / ".trash"
        for directory in (root, self.meta, self.work, self.trash):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        # ext4 avoids inodes deleted within the last minutes, one by one, so that files made where
        # a tree was just removed cost up to a millisecond each. Under a directory so marked it
        # gives every new tree a block group of its own, as it does under / (ext4(5), ialloc.c).
        # So the work directories, too: a directory copied up is made there, and what is then made
        # in it goes to the same group.
        for directory in (root, self.work):
            with suppress(OSError):  # other file systems do not know the mark and do not need it
                add_flags(directory, FS_TOPDIR_FL)
        self._clock = clock
        self._lock = threading.Lock()
        self._records = {record.info.key: record for record in self._load()}
        self._children: dict[str, int] = {}
        for record in self._records.values():
            self._count(record.info.parent, 1)
        self._claimed: set[str] = set()
        self._next = 1 + max((_value(path.name) for path in self._directories()), default=0)

    def _directories(self) -> Iterator[Path]:
        for parent in (self.root, self.work, self.trash):
            yield from (path for path in parent.iterdir() if not path.name.startswith("."))

    def _load(self) -> Iterator[Record]:
        for path in self.meta.iterdir():
            if path.name.startswith(TEMPORARY_PREFIX):
                path.unlink(missing_ok=True)
                continue
            # A record torn by a power failure, or whose tree never reached the disk, is none:
            # sweep() takes what is left of it.
            with suppress(ValueError, KeyError, TypeError):
                record = _decode(path.name, path.read_bytes())
                if record.unsettled in ("", self._boot) and (self.root / path.name).is_dir():
                    yield record

    def get(self, key: str) -> Record:
        """The record of ``key``; raises NotFound."""
        record = self._records.get(key)
        if record is None:
            raise NotFound(f"snapshot {key} does not exist")
        return record

    def exists(self, key: str) -> bool:
        """Whether there is a record of ``key``."""
        return key in self._records

    def chain(self, key: str | None) -> tuple[Record, ...]:
        """``key`` and all its ancestors, topmost first."""
        result: list[Record] = []
        while key is not None:
            record = self.get(key)
            result.append(record)
            key = record.info.parent
        return tuple(result)

    def create(
        self,
        key: str,
        kind: Kind,
        parent: str | None,
        labels: Mapping[str, str] | None,
        fill: Callable[[Path], None],
    ) -> Record:
        """A new snapshot, its tree made by ``fill(path)``; see Snapshotter.prepare for errors."""
        if not key or len(key) > KEY_LIMIT:
            raise InvalidParameter(f"invalid snapshot key {key[:80]!r}")
        with self._lock:
            if key in self._records or key in self._claimed:
                raise Conflict(f"snapshot {key} exists already")
            self._require_committed(parent)
            number, self._next = _name(self._next), self._next + 1
            self._claimed.add(key)
            self._count(parent, 1)  # keeps the parent while we work
        path = self.root / number
        info = SnapshotInfo(
            key=key, kind=kind, parent=parent, created=self._clock(), labels=dict(labels or {})
        )
        record = Record(number=number, info=info)
        try:
            fill(path)
            # An active snapshot need not survive a power failure; a commit makes it durable.
            self._write(record, durable=False)
        except BaseException as error:
            with self._lock:
                self._claimed.discard(key)
                self._count(parent, -1)
            self.discard(number)
            if isinstance(error, OSError):
                raise storage_error(error, f"preparing snapshot {key}") from error
            raise
        with self._lock:
            self._claimed.discard(key)
            self._records[key] = record
        return record

    def commit(self, name: str, key: str, parent: str | None) -> Record:
        """Rename active ``key`` to committed ``name``; see Snapshotter.commit for errors."""
        if not name or len(name) > KEY_LIMIT:
            raise InvalidParameter(f"invalid snapshot key {name[:80]!r}")
        if VOLATILE in self.get(key).info.labels:
            try:
                self._flush()  # nobody else did: not the writer's fsync(2), not the unmounting
            except OSError as error:
                raise storage_error(error, f"committing snapshot {name}") from error
        with self._lock:
            record = self.get(key)
            if record.info.kind is not Kind.ACTIVE:
                raise InvalidParameter(f"snapshot {key} is {record.info.kind}, not active")
            if name in self._records or name in self._claimed:
                raise Conflict(f"snapshot {name} exists already")
            labels = {key: text for key, text in record.info.labels.items() if key != VOLATILE}
            info = replace(record.info, key=name, kind=Kind.COMMITTED, labels=labels)
            if parent is not None:
                if record.info.parent is not None:
                    raise InvalidParameter(f"snapshot {key} has a parent already")
                self._require_committed(parent)
                info = replace(info, parent=parent)
            settled = VOLATILE in record.info.labels
            committed = replace(record, info=info, unsettled="" if settled else self._boot)
            try:
                self._write(committed, durable=settled)
            except OSError as error:
                raise storage_error(error, f"committing snapshot {name}") from error
            del self._records[key]
            self._records[name] = committed
            if parent is not None:
                self._count(parent, 1)
        self._drop(self.work / record.number)
        return committed

    def remove(self, key: str) -> None:
        """Forget ``key``, then delete its tree; see Snapshotter.remove for errors."""
        with self._lock:
            record = self.get(key)
            if self._children.get(key):
                raise Conflict(f"snapshot {key} has {self._children[key]} others on top of it")
            (self.meta / record.number).unlink(missing_ok=True)
            del self._records[key]
            self._count(record.info.parent, -1)
        self.discard(record.number)

    def discard(self, number: str) -> None:
        """Delete the directories of a snapshot without a record."""
        self._drop(self.root / number)
        self._drop(self.work / number)

    def active(self) -> list[Path]:
        """The directories of the snapshots that can be written to."""
        with self._lock:
            found = list(self._records.values())
        return [self.root / one.number for one in found if one.info.kind is Kind.ACTIVE]

    def walk(self) -> Iterator[SnapshotInfo]:
        """Every snapshot, parents before children."""
        with self._lock:
            records = dict(self._records)
        seen: set[str] = set()
        for key in records:
            line: list[SnapshotInfo] = []
            cursor: str | None = key
            while cursor is not None and cursor not in seen and cursor in records:
                seen.add(cursor)
                line.append(records[cursor].info)
                cursor = records[cursor].info.parent
            yield from reversed(line)

    def sweep(self) -> int:
        """Delete directories without a record; returns how many there were."""
        with self._lock:
            known = {record.number for record in self._records.values()}
            active = {
                record.number
                for record in self._records.values()
                if record.info.kind is Kind.ACTIVE
            }
            busy = bool(self._claimed)
            # A crash right after a commit leaves the work directory of what is active no more.
            strays = [
                path
                for path in self._directories()
                if path.name not in (active if path.parent == self.work else known)
            ]
            metas = [path for path in self.meta.iterdir() if path.name not in known]
        if busy:  # somebody is between claiming a number and recording it
            strays = [path for path in strays if path.parent == self.trash]
        else:
            for path in metas:
                path.unlink(missing_ok=True)
        for path in strays:
            self._drop(path)
        return len(strays)

    def sync(self) -> None:
        """Flush the file system the snapshots are on (syncfs(2)), and say so of each unsettled."""
        with self._lock:
            unsettled = [record for record in self._records.values() if record.unsettled]
        if unsettled:
            self._flush()
        for record in unsettled:
            with self._lock:
                now = self._records.get(record.info.key)
                if now is not None and now.number == record.number:
                    settled = replace(now, unsettled="")
                    self._write(settled, durable=True)
                    self._records[record.info.key] = settled

    def _flush(self) -> None:
        fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            syncfs(fd)
        finally:
            os.close(fd)

    def usage(self, key: str) -> Usage:
        """What ``key`` costs, measured now unless it was before and cannot change."""
        record = self.get(key)
        if record.usage is not None:
            return record.usage
        usage = measure_tree(self.root / record.number)
        if record.info.kind is Kind.COMMITTED:
            with self._lock:
                if self._records.get(key) == record:
                    measured = replace(record, usage=usage)
                    self._records[key] = measured
                    self._write(measured, durable=False)
        return usage

    def _drop(self, path: Path) -> None:
        """Delete a directory: out of the way at once, its bytes then."""
        try:
            if path.parent != self.trash:
                gone = self.trash / f"{path.name}{path.parent.name}"
                os.rename(path, gone)
                path = gone
            trash = os.open(self.trash, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                remove_tree(trash, path.name)
            finally:
                os.close(trash)
        except FileNotFoundError:
            return

    def _require_committed(self, parent: str | None) -> None:
        if parent is not None and self.get(parent).info.kind is not Kind.COMMITTED:
            raise InvalidParameter(f"snapshot {parent} is not committed")

    def _count(self, parent: str | None, delta: int) -> None:
        if parent is not None:
            self._children[parent] = self._children.get(parent, 0) + delta

    def _write(self, record: Record, *, durable: bool) -> None:
        atomic_write(self.meta / record.number, _encode(record), durable=durable)


def measure_tree(path: Path) -> Usage:
    """Blocks and inodes of all that is in directory ``path``, hard links once (as du(1))."""
    seen: set[tuple[int, int]] = set()
    size = inodes = 0
    root = os.open(path, DIRECTORY_FLAGS)
    try:
        for node in walk(root):
            status = node.status
            if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
                inode = (status.st_dev, status.st_ino)
                if inode in seen:
                    continue
                seen.add(inode)
            size += status.st_blocks * 512
            inodes += 1
    finally:
        os.close(root)
    return Usage(size=size, inodes=inodes)


def _encode(record: Record) -> bytes:
    info = record.info
    document = {
        "key": info.key,
        "kind": info.kind.value,
        "parent": info.parent,
        "created": info.created,
        "labels": dict(info.labels),
        "usage": [record.usage.size, record.usage.inodes] if record.usage else None,
        "unsettled": record.unsettled,
    }
    return json.dumps(document).encode()


def _decode(number: str, raw: bytes) -> Record:
    document = json.loads(raw)
    usage = document["usage"]
    return Record(
        number=number,
        info=SnapshotInfo(
            key=document["key"],
            kind=Kind(document["kind"]),
            parent=document["parent"],
            created=document["created"],
            labels=document["labels"],
        ),
        usage=Usage(size=usage[0], inodes=usage[1]) if usage else None,
        unsettled=document.get("unsettled", ""),
    )


def _name(value: int) -> str:
    digits = ""
    while value:
        value, digit = divmod(value, 36)
        digits = _DIGITS[digit] + digits
    return digits


def _value(name: str) -> int:
    try:
        return int(name, 36)
    except ValueError:
        return 0
