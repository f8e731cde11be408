"""Byte ranges of requests (pure): RFC 9110 section 14, and the upload ranges of the OCI spec."""

from __future__ import annotations

import re

from sampan.registry.server.errors import Code, ProtocolError

_RANGE = re.compile(r"bytes=\s*(\d{0,18})-(\d{0,18})\s*", re.ASCII | re.IGNORECASE)
_CONTENT_RANGE = re.compile(r"(\d{1,18})-(\d{1,18})", re.ASCII)


def parse_range(header: str, size: int) -> tuple[int, int] | None:
    """First byte and end (exclusive) a ``Range`` header asks of ``size`` bytes.

    None when the whole is to be sent: several ranges, or a unit or form we do not know, which a
    server may ignore (RFC 9110, 14.2). Raises 416 when the range lies outside.
    """
    match = _RANGE.fullmatch(header)
    if match is None or match[1] == match[2] == "":
        return None
    if match[1] == "":
        length = int(match[2])
        start, end = max(size - length, 0), size
        satisfiable = length > 0 and size > 0
    else:
        start = int(match[1])
        end = min(int(match[2]) + 1, size) if match[2] else size
        if match[2] and int(match[2]) < start:
            return None
        satisfiable = start < size
    if not satisfiable:
        raise ProtocolError(
            Code.SIZE_INVALID,
            f"range {header!r} is outside of {size} bytes",
            status=416,
            headers={"Content-Range": f"bytes */{size}"},
        )
    return start, end


def parse_chunk(header: str, length: int | None) -> int:
    """First byte of an uploaded chunk with this ``Content-Range`` (``<first>-<last>``).

    Raises BLOB_UPLOAD_INVALID against the form, SIZE_INVALID when ``length``, the Content-Length,
    is another.
    """
    match = _CONTENT_RANGE.fullmatch(header.strip())
    if match is None or int(match[2]) < int(match[1]):
        raise ProtocolError(Code.BLOB_UPLOAD_INVALID, f"invalid Content-Range: {header[:80]!r}")
    if length is not None and length != int(match[2]) - int(match[1]) + 1:
        raise ProtocolError(
            Code.SIZE_INVALID, f"Content-Range {header!r} is not {length} bytes, the Content-Length"
        )
    return int(match[1])


def received(size: int) -> str:
    """The ``Range`` header that says an upload has ``size`` bytes."""
    return f"0-{max(size - 1, 0)}"
