"""Compression of layers: detection by magic numbers, and compressors.

gzip goes through igzip (isal), several times as fast as zlib; zstd through zstandard. Both write
the same bytes for the same input, wherever and whenever: digests depend on it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Protocol

import zstandard
from isal import igzip_lib, isal_zlib

from sampan.errors import InvalidParameter


class Compression(StrEnum):
    """How a stream is compressed."""

    NONE = "none"
    GZIP = "gzip"
    ZSTD = "zstd"
    BZIP2 = "bzip2"
    XZ = "xz"


_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_IGZIP_BEST = igzip_lib.ISAL_BEST_COMPRESSION
_GZIP_LEVELS = (0, 9)
_ZSTD_LEVELS = (0, 22)
_DEFAULT_GZIP, _DEFAULT_ZSTD = 2, 3


def detect(head: bytes) -> Compression:
    """The compression of a stream beginning with ``head`` (six bytes suffice)."""
    if head[:3] == b"\x1f\x8b\x08":
        return Compression.GZIP
    if head[:4] == _ZSTD_MAGIC or (head[1:4] == b"\x2a\x4d\x18" and head[0] & 0xF0 == 0x50):
        return Compression.ZSTD
    if head[:3] == b"BZh":
        return Compression.BZIP2
    if head[:6] == b"\xfd7zXZ\x00":
        return Compression.XZ
    return Compression.NONE


def compress(
    chunks: Iterable[bytes], compression: Compression, level: int | None = None
) -> Iterator[bytes]:
    """``chunks`` compressed with GZIP (levels 0 to 9), ZSTD (1 to 22, 0 its default) or NONE.

    gzip's levels up to 3 are igzip's, those above zlib's, which are slower and smaller.

    Raises InvalidParameter, at the first chunk, for another compression or level.
    """
    if compression is Compression.NONE:
        yield from chunks
    elif compression is Compression.GZIP:
        yield from _gzip(chunks, _level(level, _DEFAULT_GZIP, _GZIP_LEVELS))
    elif compression is Compression.ZSTD:
        yield from _zstd(chunks, _level(level, _DEFAULT_ZSTD, _ZSTD_LEVELS))
    else:
        raise InvalidParameter(f"layers are not compressed with {compression}")


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self) -> bytes: ...


def _level(level: int | None, default: int, bounds: tuple[int, int]) -> int:
    if level is None:
        return default
    if not bounds[0] <= level <= bounds[1]:
        raise InvalidParameter(f"compression level {level} is not in {bounds[0]}..{bounds[1]}")
    return level


def _gzip(chunks: Iterable[bytes], level: int) -> Iterator[bytes]:
    # wbits 31: gzip wrapper; igzip writes no time and no name, so the header is constant.
    compressor: _Compressor
    if level <= _IGZIP_BEST:
        compressor = isal_zlib.compressobj(level, wbits=31)
    else:
        compressor = zlib.compressobj(level, wbits=31)
    for chunk in chunks:
        if data := compressor.compress(chunk):
            yield data
    yield compressor.flush()


def _zstd(chunks: Iterable[bytes], level: int) -> Iterator[bytes]:
    compressor = zstandard.ZstdCompressor(level=level, write_checksum=True).compressobj()
    for chunk in chunks:
        if data := compressor.compress(chunk):
            yield data
    yield compressor.flush()
