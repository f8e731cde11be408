"""Bytes of an uncompressed archive: decompressed, hashed and counted on their way.

The chain is: stream → :class:`Incoming` (count, hash) → :func:`decompress` → :class:`Hashed` →
:class:`~sampan.layer.ahead.Ahead` (in a thread of its own) → :class:`Source` (limits).
Every step hands on chunks of bounded size, whatever the input claims to expand to.
"""

from __future__ import annotations

import bz2
import hashlib
import lzma
import os
from collections.abc import Iterator
from typing import Protocol, cast

import zstandard
from isal import igzip_lib

from sampan.errors import ArchiveRefused
from sampan.layer.compression import Compression, detect
from sampan.layer.model import Limits, Readable
from sampan.model.digest import Digest

#: Compressed bytes per read and uncompressed bytes per chunk: large enough to make calls rare,
#: small enough to stay in the processor's cache between inflating, hashing and writing.
READ = 256 << 10
CHUNK = 512 << 10
#: Input per step of zstd, whose decompressor has no output limit: 4 KiB expand to 128 MiB at most
#: (RFC 8878: a block of four bytes may stand for 128 KiB).
_ZSTD_STEP = 4 << 10
_XZ_MEMORY = 256 << 20
_ZSTD_WINDOW = 128 << 20
_ERRORS: tuple[type[Exception], ...] = (
    cast("type[Exception]", igzip_lib.IsalError),  # its stub calls it an instance
    lzma.LZMAError,
    OSError,
    ValueError,
    EOFError,
)


class Incoming:
    """The stream as it comes: read in large pieces, counted, hashed if wanted."""

    def __init__(self, stream: Readable, *, hashed: bool) -> None:
        self._stream = stream
        self._hash = hashlib.sha256() if hashed else None
        self.count = 0

    def read(self) -> bytes:
        """The next piece, empty at the end."""
        data = self._stream.read(READ)
        self.count += len(data)
        if self._hash is not None:
            self._hash.update(data)
        return data

    @property
    def digest(self) -> Digest | None:
        """The digest so far, if it was wanted."""
        return Digest("sha256", self._hash.hexdigest()) if self._hash is not None else None


class _Decompressor(Protocol):
    """What igzip, bz2 and lzma objects have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


def decompress(incoming: Incoming) -> Iterator[bytes]:
    """The uncompressed chunks of a stream, its compression told by its first bytes.

    Raises ArchiveRefused when it is corrupt, truncated, or followed by something else.
    """
    head = b""
    while len(head) < 6:
        data = incoming.read()
        if not data:
            break
        head += data
    compression = detect(head)
    if compression is Compression.NONE:
        yield from _plain(incoming, head)
    elif compression is Compression.ZSTD:
        yield from _zstd(incoming, head)
    else:
        yield from _members(incoming, head, compression)


def _plain(incoming: Incoming, head: bytes) -> Iterator[bytes]:
    while head:
        yield head
        head = incoming.read()


def _new(compression: Compression) -> _Decompressor:
    if compression is Compression.GZIP:
        return igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
    if compression is Compression.BZIP2:
        return bz2.BZ2Decompressor()
    return lzma.LZMADecompressor(memlimit=_XZ_MEMORY)


def _members(incoming: Incoming, data: bytes, compression: Compression) -> Iterator[bytes]:
    """gzip, bzip2 and xz: any number of members one after another, then padding at most."""
    decompressor = _new(compression)
    while True:
        try:
            chunk = decompressor.decompress(data, CHUNK)
        except _ERRORS as error:
            raise ArchiveRefused(f"malformed {compression} stream: {error}") from error
        if chunk:
            yield chunk
        data = b""
        if decompressor.eof:
            data = decompressor.unused_data.lstrip(b"\0")
            while len(data) < 6 and (more := incoming.read()):
                data = (data + more).lstrip(b"\0")
            if not data:
                return
            if detect(data) is not compression:
                raise ArchiveRefused(f"malformed {compression} stream: rubbish after its end")
            decompressor = _new(compression)
        elif decompressor.needs_input:
            data = incoming.read()
            if not data:
                raise ArchiveRefused(f"truncated {compression} stream")


def _zstd(incoming: Incoming, data: bytes) -> Iterator[bytes]:
    """zstd frames one after another, skippable ones included."""
    context = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
    decompressor = context.decompressobj()
    parts: list[bytes] = []
    held = 0
    fresh = True
    while data:
        view = memoryview(data)
        position = 0
        while position < len(data):
            step = view[position : position + _ZSTD_STEP]
            try:
                part = decompressor.decompress(step)
            except zstandard.ZstdError as error:
                raise ArchiveRefused(f"malformed zstd stream: {error}") from error
            position += len(step)
            fresh = False
            if decompressor.eof:
                position -= len(decompressor.unused_data)
                decompressor = context.decompressobj()
                fresh = True
            if part:
                parts.append(part)
                held += len(part)
                if held >= CHUNK:
                    yield from _pieces(parts)
                    parts, held = [], 0
        data = incoming.read()
    if not fresh:
        raise ArchiveRefused("truncated zstd stream")
    yield from _pieces(parts)


def _pieces(parts: list[bytes]) -> Iterator[bytes]:
    joined = parts[0] if len(parts) == 1 else b"".join(parts)
    if joined:
        yield joined


class Hashed:
    """Chunks whose digest is computed as they pass."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._hash = hashlib.sha256()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        chunk = next(self._chunks)
        self._hash.update(chunk)
        return chunk

    @property
    def digest(self) -> Digest:
        """The digest of all that passed so far."""
        return Digest("sha256", self._hash.hexdigest())


class Source:
    """A cursor over uncompressed chunks, with exact reads and zero-copy writes.

    ``count`` is the number of bytes that came.
    """

    def __init__(self, chunks: Iterator[bytes], limits: Limits, incoming: Incoming) -> None:
        self._chunks = chunks
        self._limits = limits
        self._incoming = incoming
        self._chunk = memoryview(b"")
        self._position = 0
        self._end = 0
        self.count = 0

    def _more(self) -> bool:
        """Load the next chunk; False at the end."""
        chunk = next(self._chunks, None)
        if chunk is None:
            return False
        self.count += len(chunk)
        limits = self._limits
        if self.count > limits.size:
            raise ArchiveRefused(f"the archive is larger than the limit of {limits.size} bytes")
        if (
            self.count > limits.ratio_from
            and self.count > max(self._incoming.count, 1) * limits.ratio
        ):
            raise ArchiveRefused(
                f"the archive expands to more than {limits.ratio} times its compressed size"
            )
        self._chunk = memoryview(chunk)
        self._position, self._end = 0, len(chunk)
        return True

    def take(self, count: int) -> bytes | memoryview:
        """Exactly ``count`` bytes, fewer only at the end of the archive."""
        position = self._position
        stop = position + count
        if stop <= self._end:
            self._position = stop
            return self._chunk[position:stop]
        parts: list[bytes] = []
        while count:
            if self._position == self._end and not self._more():
                break
            stop = min(self._position + count, self._end)
            parts.append(bytes(self._chunk[self._position : stop]))
            count -= stop - self._position
            self._position = stop
        return b"".join(parts)

    def pieces(self, count: int) -> Iterator[memoryview]:
        """``count`` bytes in as many pieces as they lie in chunks; ArchiveRefused if truncated."""
        while count:
            if self._position == self._end and not self._more():
                raise ArchiveRefused("truncated tar: it ends in the middle of a file")
            stop = min(self._position + count, self._end)
            piece = self._chunk[self._position : stop]
            self._position = stop
            count -= len(piece)
            yield piece

    def skip(self, count: int) -> None:
        """Pass over ``count`` bytes; ArchiveRefused if there are fewer."""
        stop = self._position + count
        if stop <= self._end:
            self._position = stop
            return
        for _ in self.pieces(count):
            pass

    def copy(self, count: int, fd: int) -> None:
        """Write the next ``count`` bytes to descriptor ``fd`` at its position."""
        position = self._position
        stop = position + count
        if stop <= self._end:  # the common case: a small file within one chunk
            self._position = stop
            piece = self._chunk[position:stop]
            written = os.write(fd, piece)
            if written < count:
                _write_all(fd, piece[written:])
            return
        for piece in self.pieces(count):
            _write_all(fd, piece)

    def drain(self) -> None:
        """Read to the end, so that digests and trailing checks are complete."""
        while self._more():
            pass
        self._position = self._end


def _write_all(fd: int, piece: memoryview) -> None:
    while piece:
        piece = piece[os.write(fd, piece) :]
