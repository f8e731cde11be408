"""Contexts that clients send again and again: kept, so that only what has changed travels.

A client lists what it has, one entry of three NUL-ended fields each (a stamp that changes whenever
the file does, beginning with the octal mode; the path; the target of a symbolic link). What the
kept directory has under the same stamp stays, the rest is removed or sent as a tar. One build at a
time uses a kept directory; another one meanwhile gets a directory of its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import stat
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sampan.build.kept import Kept, note_use, read_note
from sampan.engine.threads import Threads
from sampan.errors import InvalidParameter
from sampan.kernel.mount import descriptor
from sampan.kernel.openat import in_root
from sampan.layer import archive_put
from sampan.layer.model import Readable
from sampan.volume.local import disk_usage

#: A directory nobody has used for this long is removed when the next one is wanted.
KEEP_SECONDS = 48 * 3600
#: More entries than any context has.
_MOST = 5_000_000
_OUTSIDE = frozenset((b"", b".", b".."))
#: path -> (stamp, link target), as listed
Listing = Mapping[bytes, tuple[bytes, bytes]]


@dataclass(slots=True, kw_only=True)
class KeptContexts:
    """The directories below ``root`` that are kept, and below ``transient`` those that are not."""

    root: Path
    transient: Path
    threads: Threads
    _used: set[str] = field(default_factory=set)

    @contextlib.asynccontextmanager
    async def directory(self, key: str, description: str) -> AsyncIterator[Path]:
        """The directory kept under ``key`` ("" none), below which ``content`` is the context's."""
        identity = hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()
        if not key or identity in self._used:
            async with self.temporary() as path:
                yield path
            return
        self._used.add(identity)
        try:
            await self.threads.run(self._open, identity, key, description)
            yield self.root / identity
        finally:
            self._used.discard(identity)

    @contextlib.asynccontextmanager
    async def temporary(self) -> AsyncIterator[Path]:
        """An empty directory that is gone afterwards."""
        path = self.transient / uuid.uuid4().hex
        path.mkdir(mode=0o700, parents=True)
        try:
            yield path
        finally:
            await self.threads.run_long(shutil.rmtree, path, True)

    def _open(self, identity: str, key: str, description: str) -> None:
        latest = time.time() - KEEP_SECONDS
        for one in self.list(sizes=False):
            if one.used < latest:
                self.remove(one.id)
        directory = self.root / identity
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        note_use(directory / "note", {"key": json.dumps(["", description, key])})

    def list(self, *, sizes: bool = True) -> list[Kept]:
        """The kept directories, least recently used first. Blocking."""
        found: list[Kept] = []
        if not self.root.is_dir():
            return found
        for directory in self.root.iterdir():
            with contextlib.suppress(FileNotFoundError):
                path = directory / "note"
                note = read_note(path)
                key = json.loads(str(note.get("key") or "[]"))
                found.append(
                    Kept.noted(
                        path,
                        note,
                        identity=directory.name,
                        description="local source for " + (key[1] if len(key) > 1 else "context"),
                        size=disk_usage(directory) if sizes else 0,
                        in_use=directory.name in self._used,
                    )
                )
        return sorted(found, key=lambda one: (one.used, one.id))

    def remove(self, identity: str) -> bool:
        """Remove a kept directory unless a build uses it. Blocking."""
        if identity in self._used:
            return False
        shutil.rmtree(self.root / identity, ignore_errors=True)
        return True


def parse_listing(data: bytes) -> dict[bytes, tuple[bytes, bytes]]:
    """A client's listing. Raises InvalidParameter where it is none."""
    fields = data.split(b"\0")
    if len(fields) % 3 != 1 or fields[-1]:
        raise InvalidParameter("malformed listing of a build context")
    if len(fields) > 3 * _MOST:
        raise InvalidParameter("the build context has too many files")
    found = {
        path: (stamp, link)
        for stamp, path, link in zip(fields[0:-1:3], fields[1:-1:3], fields[2:-1:3], strict=True)
    }
    for path in found:
        if not _OUTSIDE.isdisjoint(path.split(b"/")):
            raise InvalidParameter("a listing of a build context leads outside of it")
    return found


def missing(directory: Path, listing: Listing) -> list[int]:
    """Which entries of a listing, by number, the kept directory does not have. Blocking."""
    kept = _kept(directory)
    return [number for number, path in enumerate(listing) if kept.get(path) != listing[path]]


def _kept(directory: Path) -> dict[bytes, tuple[bytes, bytes]]:
    try:
        return parse_listing((directory / "listing").read_bytes())
    except (FileNotFoundError, InvalidParameter):
        return {}


def update(directory: Path, data: bytes, stream: Readable | None) -> Path:
    """Make ``directory/content`` what the listing ``data`` says; ``stream`` brings what was
    missing. Returns the content's path. Blocking.

    Until that is done the directory counts as empty, so a transfer that breaks leaves no mixture.
    """
    listing = parse_listing(data)
    kept = _kept(directory)
    content = directory / "content"
    if not kept:
        shutil.rmtree(content, ignore_errors=True)
    (directory / "listing").unlink(missing_ok=True)
    content.mkdir(exist_ok=True)
    content.chmod(0o755)
    with descriptor(os.open(content, os.O_RDONLY | os.O_DIRECTORY)) as root:
        touched = {_parent(path) for path in listing if kept.get(path) != listing[path]}
        for path in sorted(kept.keys() - listing.keys(), key=len, reverse=True):
            _remove(root, path)
            touched.add(_parent(path))
        for path in kept.keys() & listing.keys():
            if _kind(kept[path]) != _kind(listing[path]):
                _remove(root, path)
        if stream is not None:
            archive_put(root, "/", stream, owner=(0, 0))
        for path in touched:
            if path in listing:
                _restore_time(root, path, listing[path][0])
    temporary = directory / "listing.new"
    temporary.write_bytes(data)
    temporary.replace(directory / "listing")
    return content


def _parent(path: bytes) -> bytes:
    return path.rpartition(b"/")[0]


def _kind(entry: tuple[bytes, bytes]) -> int:
    mode = entry[0].partition(b" ")[0]
    try:
        return stat.S_IFMT(int(mode, 8))
    except ValueError:
        raise InvalidParameter("malformed listing of a build context") from None


def _remove(root: int, path: bytes) -> None:
    """Remove a file, or a directory with what is left in it."""
    parent, _, name = os.fsdecode(path).rpartition("/")
    try:
        fd = in_root(root, parent or ".", os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return  # went with its parent
    try:
        if stat.S_ISDIR(os.lstat(name, dir_fd=fd).st_mode):
            shutil.rmtree(name, dir_fd=fd)
        else:
            os.unlink(name, dir_fd=fd)
    except FileNotFoundError:
        return
    finally:
        os.close(fd)


def _restore_time(root: int, path: bytes, stamp: bytes) -> None:
    """Give a directory the time it has at the client's; what happened in it changed that."""
    fields = stamp.split(b" ")
    if len(fields) < 3 or not fields[2].isdigit():
        return
    with (
        contextlib.suppress(OSError),
        descriptor(in_root(root, os.fsdecode(path), os.O_RDONLY | os.O_DIRECTORY)) as fd,
    ):
        moment = int(fields[2])
        os.utime(fd, ns=(moment, moment))
