"""Write an archive as a generator of large chunks; deterministic for the same tree."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress

from sampan.layer.entry import (
    BLOCK,
    BLOCK_DEVICE,
    CHARACTER,
    DIRECTORY,
    FIFO,
    HARD_LINK,
    REGULAR,
    SYMBOLIC_LINK,
    Entry,
    format_entry,
)
from sampan.layer.tree import Node, portable_xattrs
from sampan.model.idmap import IdMap

_CHUNK = 1 << 20
_KINDS = {
    stat.S_IFDIR: DIRECTORY,
    stat.S_IFREG: REGULAR,
    stat.S_IFLNK: SYMBOLIC_LINK,
    stat.S_IFCHR: CHARACTER,
    stat.S_IFBLK: BLOCK_DEVICE,
    stat.S_IFIFO: FIFO,
}
#: Opening must not block on a FIFO that took a file's place, nor follow a link that did.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class TarWriter:
    """Collects entries; each method returns the chunks that are full, :meth:`finish` the rest.

    Remembers the first name of every inode with several links, to write the others as hard links.
    """

    def __init__(self, ids: IdMap | None = None) -> None:
        """``ids``: owners are written as they are inside this user namespace."""
        self._ids = ids
        self._buffer = bytearray()
        self._links: dict[tuple[int, int], bytes] = {}

    def node(self, node: Node, name: bytes | None = None) -> Iterator[bytes]:
        """The file at ``node`` under ``name`` (default: its path), data included.

        Sockets are left out (no archive can hold one), so is a file that vanished.
        """
        status = node.status
        kind = _KINDS.get(stat.S_IFMT(status.st_mode))
        if kind is None:
            return
        name = node.path if name is None else name
        uid, gid = status.st_uid, status.st_gid
        if self._ids is not None:
            uid, gid = self._ids.inside(uid, gid)
        entry = Entry(
            name=name + b"/" if kind == DIRECTORY and name[-1:] != b"/" else name,
            type=kind,
            mode=stat.S_IMODE(status.st_mode),
            uid=uid,
            gid=gid,
            mtime=status.st_mtime_ns,
        )
        if kind != DIRECTORY and status.st_nlink > 1:
            first = self._links.setdefault((status.st_dev, status.st_ino), name)
            if first != name:
                entry.type, entry.link = HARD_LINK, first
                yield from self._entry(entry)
                return
        if kind == REGULAR:
            yield from self._regular(node, entry)
            return
        with suppress(FileNotFoundError):  # vanished meanwhile
            entry.xattrs = portable_xattrs(node.parent, node.name)
            if kind == SYMBOLIC_LINK:
                entry.link = os.readlink(node.name, dir_fd=node.parent)
            elif kind in (CHARACTER, BLOCK_DEVICE):
                entry.major, entry.minor = os.major(status.st_rdev), os.minor(status.st_rdev)
            yield from self._entry(entry)

    def _regular(self, node: Node, entry: Entry) -> Iterator[bytes]:
        try:
            fd = os.open(node.name, _READ, dir_fd=node.parent)
        except FileNotFoundError:
            return
        try:
            entry.xattrs = portable_xattrs(node.parent, node.name)
            entry.size = entry.stored = node.status.st_size
            yield from self._entry(entry)
            yield from self._data(fd, entry.stored)
        finally:
            os.close(fd)

    def _data(self, fd: int, size: int) -> Iterator[bytes]:
        """Exactly ``size`` bytes, whatever becomes of the file meanwhile, and the padding."""
        remaining = size
        while remaining:
            data = os.read(fd, min(_CHUNK, remaining))
            if not data:  # truncated meanwhile; the header is written, so the length must hold
                data = bytes(min(_CHUNK, remaining))
            remaining -= len(data)
            yield from self._add(data)
        yield from self._add(bytes(-size % BLOCK))

    def marker(self, name: bytes) -> Iterator[bytes]:
        """An empty file: a whiteout."""
        yield from self._entry(Entry(name=name, mode=0o600))

    def document(self, name: bytes, data: bytes, *, mode: int = 0o644) -> Iterator[bytes]:
        """A file made of ``data``, with time zero."""
        entry = Entry(name=name, mode=mode, size=len(data), stored=len(data))
        yield from self._entry(entry)
        yield from self._add(data)
        yield from self._add(bytes(-len(data) % BLOCK))

    def directory(self, name: bytes) -> Iterator[bytes]:
        """A directory with time zero; ``name`` ends in a slash."""
        yield from self._entry(Entry(name=name, type=DIRECTORY, mode=0o755))

    def file(self, name: bytes, fd: int, size: int) -> Iterator[bytes]:
        """``size`` bytes read from ``fd``, with time zero."""
        yield from self._entry(Entry(name=name, size=size, stored=size))
        yield from self._data(fd, size)

    def stream(self, name: bytes, chunks: Iterable[bytes], size: int) -> Iterator[bytes]:
        """A file of ``size`` bytes, with time zero; ValueError when ``chunks`` are not so many."""
        yield from self._entry(Entry(name=name, size=size, stored=size))
        count = 0
        for chunk in chunks:
            count += len(chunk)
            yield from self._add(chunk)
        if count != size:
            raise ValueError(f"{os.fsdecode(name)} has {count} bytes, not {size}")
        yield from self._add(bytes(-size % BLOCK))

    def _entry(self, entry: Entry) -> Iterator[bytes]:
        yield from self._add(format_entry(entry))

    def _add(self, data: bytes) -> Iterator[bytes]:
        if len(data) >= _CHUNK:
            if self._buffer:
                yield bytes(self._buffer)
                self._buffer.clear()
            yield data
            return
        self._buffer += data
        if len(self._buffer) >= _CHUNK:
            yield bytes(self._buffer)
            self._buffer.clear()

    def flush(self) -> Iterator[bytes]:
        """What was held, so that somebody else may write entries next."""
        if self._buffer:
            yield bytes(self._buffer)
            self._buffer.clear()

    def finish(self) -> Iterator[bytes]:
        """The end of the archive: two blocks of zeros, and what was still held."""
        self._buffer += bytes(2 * BLOCK)
        yield bytes(self._buffer)
        self._buffer.clear()
