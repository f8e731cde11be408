"""Read an archive entry by entry: extended headers folded in, data streamed.

Formats: see :mod:`sampan.layer.entry`. Sparse files in all their forms: old GNU (type ``S``) and
pax 0.0, 0.1 and 1.0 (GNU tar manual, "Storing Sparse Files").
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from sampan.errors import ArchiveRefused
from sampan.layer.entry import (
    BLOCK,
    DIRECTORY,
    GNU_LONG_LINK,
    GNU_LONG_NAME,
    GNU_SPARSE,
    GNU_VOLUME,
    NUL_BLOCK,
    OLD_REGULAR,
    PAX,
    PAX_GLOBAL,
    PAX_SOLARIS,
    REGULAR,
    REGULAR_TYPES,
    WITHOUT_DATA,
    XATTR_PREFIX,
    Entry,
    parse_header,
    parse_number,
    parse_pax,
    parse_pax_number,
    parse_pax_time,
    unquote_xattr,
)
from sampan.layer.model import Limits
from sampan.layer.source import Source

_GNU_SPARSE = b"GNU.sparse."
_SPARSE_ENTRY = struct.Struct("12s12s")
_MAX_SEGMENTS = 1 << 20

Records = list[tuple[bytes, bytes]]


class TarReader:
    """Iterates over the entries of an archive.

    After each entry its data may be consumed from :attr:`source` (``entry.stored`` bytes,
    through :meth:`data` or :meth:`copy`); what is left is skipped. Entries, names, headers and
    the sum of file sizes are held against the limits.
    """

    def __init__(self, source: Source, limits: Limits, *, padding_optional: bool = False) -> None:
        """``padding_optional``: the archive may end after the last byte of its last file, as the
        docker CLI's build contexts do that bring a Dockerfile from elsewhere."""
        self.source = source
        self._padding_optional = padding_optional
        self.entries = 0
        self._limits = limits
        self._expanded = 0
        self._remaining = 0
        self._padding = 0
        self._global: Records = []

    def __iter__(self) -> Iterator[Entry]:
        return self

    def __next__(self) -> Entry:
        if self._remaining or self._padding:
            self.source.skip(self._remaining)
            if self._padding_optional:
                self.source.take(self._padding)
            else:
                self.source.skip(self._padding)
            self._remaining = self._padding = 0
        entry = self._next()
        if entry is None:
            raise StopIteration
        self.entries += 1
        if self.entries > self._limits.entries:
            raise ArchiveRefused(f"the archive has more than {self._limits.entries} entries")
        self._expanded += entry.size
        if self._expanded > self._limits.expanded:
            raise ArchiveRefused(
                f"the archive's files are larger than the limit of {self._limits.expanded} bytes"
            )
        return entry

    def data(self) -> Iterator[memoryview]:
        """The rest of the present entry's stored data, in pieces."""
        count, self._remaining = self._remaining, 0
        return self.source.pieces(count)

    def copy(self, fd: int, count: int | None = None) -> None:
        """Write the next ``count`` bytes of the present entry's data (all of it) to ``fd``."""
        if count is None or count > self._remaining:
            count = self._remaining
        self._remaining -= count
        self.source.copy(count, fd)

    def _next(self) -> Entry | None:
        local: Records = []
        name = link = None
        while True:
            block = self.source.take(BLOCK)
            if len(block) < BLOCK:
                if len(block) == 0 and not local and name is None and link is None:
                    return None
                raise ArchiveRefused("truncated tar: it ends in the middle of a header")
            block = bytes(block)
            if block == NUL_BLOCK:
                return None
            entry, magic = parse_header(block)
            kind = entry.type
            if kind in (PAX, PAX_SOLARIS):
                local = parse_pax(self._extended(entry))
            elif kind == PAX_GLOBAL:
                self._merge_global(parse_pax(self._extended(entry)))
            elif kind == GNU_LONG_NAME:
                name = self._extended(entry).partition(b"\0")[0]
            elif kind == GNU_LONG_LINK:
                link = self._extended(entry).partition(b"\0")[0]
            elif kind == GNU_VOLUME:
                self._skip(entry.stored)
            else:
                break
        if name is not None:
            entry.name = name
        if link is not None:
            entry.link = link
        self._complete(entry, magic, block, local)
        return entry

    def _complete(self, entry: Entry, magic: bytes, block: bytes, local: Records) -> None:
        """Fold extended records into ``entry`` and settle its type and size."""
        sparse: Records = []
        if self._global or local:
            sparse = _fold(entry, self._global + local)
        if entry.type in (OLD_REGULAR, REGULAR) and entry.name.endswith(b"/"):
            entry.type = DIRECTORY  # v7 tars know no other way
        if entry.type in WITHOUT_DATA:
            entry.stored = entry.size = 0
        elif entry.type not in REGULAR_TYPES:
            raise ArchiveRefused(f"unhandled tar entry type {entry.type!r} of {_show(entry.name)}")
        if len(entry.name) > self._limits.path or len(entry.link) > self._limits.path:
            raise ArchiveRefused(f"the name {_show(entry.name)} is too long")
        if b"\0" in entry.name or b"\0" in entry.link:
            raise ArchiveRefused(f"the name {_show(entry.name)} contains a zero byte")
        self._remaining, self._padding = entry.stored, -entry.stored % BLOCK
        if entry.type == GNU_SPARSE and magic.startswith(b"ustar"):
            self._old_sparse(entry, block)
        elif sparse:
            self._pax_sparse(entry, sparse)

    def _extended(self, entry: Entry) -> bytes:
        """The data of an extended header."""
        if entry.stored > self._limits.header:
            raise ArchiveRefused("malformed tar: an extended header is too large")
        data = bytes(self.source.take(entry.stored))
        if len(data) < entry.stored:
            raise ArchiveRefused("truncated tar: it ends in the middle of a header")
        self._skip(-entry.stored % BLOCK)
        return data

    def _skip(self, count: int) -> None:
        self.source.skip(count)

    def _merge_global(self, records: Records) -> None:
        merged = dict(self._global)
        merged.update(records)
        if len(merged) > 4096:
            raise ArchiveRefused("malformed tar: too many global pax records")
        self._global = [item for item in merged.items() if item[1]]

    def _old_sparse(self, entry: Entry, block: bytes) -> None:
        """The map in an old GNU sparse header: 4 segments, then blocks of 21."""
        segments = _segments(block[386:482], 4)
        entry.size = parse_number(block[483:495])
        extended = block[482]
        while extended:
            more = bytes(self.source.take(BLOCK))
            if len(more) < BLOCK:
                raise ArchiveRefused("truncated tar: it ends in the middle of a header")
            segments += _segments(more, 21)
            if len(segments) > _MAX_SEGMENTS:
                raise ArchiveRefused("malformed tar: a sparse file has too many segments")
            extended = more[504]
        entry.type = REGULAR
        entry.sparse = _check_segments(entry, segments)

    def _pax_sparse(self, entry: Entry, records: Records) -> None:
        keys = dict(records)
        if b"name" in keys:
            entry.name = keys[b"name"]
        size = keys.get(b"realsize", keys.get(b"size"))
        if keys.get(b"major") == b"1" and keys.get(b"minor") == b"0":
            segments = self._map_in_data(entry)
        elif b"map" in keys:
            segments = _pairs(keys[b"map"].split(b","))
        else:
            segments = _pairs([value for key, value in records if key in (b"offset", b"numbytes")])
        if size is None:
            if not segments:
                return
            raise ArchiveRefused("malformed tar: a sparse file has no size")
        entry.size = parse_pax_number(size, "size")
        entry.sparse = _check_segments(entry, segments)

    def _map_in_data(self, entry: Entry) -> list[tuple[int, int]]:
        """Format 1.0: decimal lines before the data, padded to whole blocks."""
        buffer = bytearray()
        wanted = 1
        values: list[bytes] = []
        while len(values) < wanted:
            if self._remaining < BLOCK or len(buffer) > self._limits.header:
                raise ArchiveRefused("malformed tar: the map of a sparse file is not complete")
            buffer += self.source.take(BLOCK)
            self._remaining -= BLOCK
            entry.stored -= BLOCK
            values = bytes(buffer).split(b"\n")[:-1]
            if values and wanted == 1:
                wanted = 1 + 2 * parse_pax_number(values[0], "sparse map")
        return _pairs(values[1:wanted])


def _fold(entry: Entry, records: Records) -> Records:
    """Apply pax records to ``entry``; returns those about sparse files, prefix removed."""
    sparse: Records = []
    xattrs: dict[bytes, bytes] = {}
    other: dict[bytes, bytes] = {}
    for key, value in records:
        if key.startswith(XATTR_PREFIX):
            xattrs[unquote_xattr(key[len(XATTR_PREFIX) :])] = value
        elif key.startswith(_GNU_SPARSE):
            sparse.append((key[len(_GNU_SPARSE) :], value))
        elif not value:
            continue  # "an empty value deletes the record"
        elif key == b"path":
            entry.name = value
        elif key == b"linkpath":
            entry.link = value
        elif key == b"size":
            entry.size = entry.stored = parse_pax_number(value, "size")
        elif key == b"mtime":
            entry.mtime = parse_pax_time(value)
        elif key == b"uid":
            entry.uid = parse_pax_number(value, "uid")
        elif key == b"gid":
            entry.gid = parse_pax_number(value, "gid")
        elif key == b"uname":
            entry.uname = value
        elif key == b"gname":
            entry.gname = value
        else:
            other[key] = value
    entry.xattrs, entry.pax = xattrs, other
    return sparse


def _segments(raw: bytes, count: int) -> list[tuple[int, int]]:
    found = []
    for index in range(count):
        offset, length = _SPARSE_ENTRY.unpack_from(raw, index * 24)
        if not offset[0]:
            break
        found.append((parse_number(offset), parse_number(length)))
    return found


def _pairs(values: list[bytes]) -> list[tuple[int, int]]:
    if len(values) % 2 or len(values) > 2 * _MAX_SEGMENTS:
        raise ArchiveRefused("malformed tar: the map of a sparse file is not pairs")
    numbers = [parse_pax_number(value, "sparse map") for value in values]
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def _check_segments(entry: Entry, segments: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """The segments, in order, disjoint, inside the file and as long as the stored data."""
    position = total = 0
    for offset, length in segments:
        if offset < position or length < 0:
            raise ArchiveRefused("malformed tar: segments of a sparse file overlap")
        position = offset + length
        total += length
    if position > entry.size or total != entry.stored:
        raise ArchiveRefused("malformed tar: segments of a sparse file do not fit its size")
    return tuple(item for item in segments if item[1])


def _show(name: bytes) -> str:
    return repr(name[:120].decode("utf-8", "backslashreplace"))
