"""Compression of layers: detection, decompression and compression (gzip by isal, zstd)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import StrEnum


class Compression(StrEnum):
    """How a stream is compressed."""

    NONE = "none"
    GZIP = "gzip"
    ZSTD = "zstd"
    BZIP2 = "bzip2"
    XZ = "xz"


def detect(head: bytes) -> Compression:
    """The compression of a stream beginning with ``head`` (six bytes suffice)."""
    raise NotImplementedError


def compress(
    chunks: Iterable[bytes], compression: Compression, level: int | None = None
) -> Iterator[bytes]:
    """``chunks`` compressed with GZIP, ZSTD or NONE; deterministic. Raises InvalidParameter."""
    raise NotImplementedError
