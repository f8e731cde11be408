"""Docker's ``local`` log format: length, protobuf LogEntry, length again, each length 4 bytes BE.

LogEntry: 1 source (string), 2 time_nano (varint), 3 line (bytes), 4 partial (bool),
5 partial_log_metadata (spec/plugins/entry.proto). Lines are stored without their newline.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from sampan.engine.clock import rfc3339
from sampan.engine.logfile import LogLine, Position, _inflate, rotated

_BLOCK = 1 << 18


def decode(data: bytes) -> tuple[list[LocalLine], int]:
    """The whole entries at the start of ``data``, and how many bytes they are."""
    lines: list[LocalLine] = []
    at = 0
    while len(data) - at >= 8:
        size = int.from_bytes(data[at : at + 4], "big")
        if len(data) - at < size + 8:
            break
        lines.append(_entry(data[at + 4 : at + 4 + size]))
        at += size + 8
    return lines, at


class LocalLine(LogLine, kw_only=True):
    """An entry; a piece of a line longer than 16 KiB has its line's ``piece_of`` and ``ordinal``.

    The last piece has its line's end, the others have none.
    """

    piece_of: str = ""
    ordinal: int = 0


def _entry(message: bytes) -> LocalLine:
    source, stamp, line, ended = "stdout", 0, b"", True
    metadata = b""
    for field, value in _fields(message):
        match field, value:
            case 1, bytes():
                source = value.decode(errors="replace")
            case 2, int():
                stamp = value
            case 3, bytes():
                line = value
            case 4, int():
                ended = not value
            case 5, bytes():
                metadata = value
    piece_of, ordinal = "", 0
    for field, value in _fields(metadata):
        match field, value:
            case 1, int():
                ended = bool(value)  # PartialLogEntryMetadata.last
            case 2, bytes():
                piece_of = value.decode(errors="replace")
            case 3, int():
                ordinal = value
    text = line.decode("utf-8", "replace")
    return LocalLine(
        log=f"{text}\n" if ended else text,
        stream=source,
        time=rfc3339(stamp),
        piece_of=piece_of,
        ordinal=ordinal,
    )


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field numbers and values of a protobuf message of varints and byte strings."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        value, at = _varint(message, at)
        if key & 7 == 0:
            yield key >> 3, value
        else:
            yield key >> 3, message[at : at + value]
            at += value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
    return value, at


def blocks(path: Path, tail: int | None) -> Iterator[list[LocalLine] | Position]:
    """Entries of all files from the ``tail`` last on; at the end, where to go on from."""
    names = rotated(path)
    kept: list[list[LocalLine]] = []
    position = Position(-1)
    count = 0
    for name in reversed(names):
        if tail is not None and count >= tail and name != path:
            break
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
            if name.suffix == ".gz":
                data = _inflate(descriptor)
                os.close(descriptor)
                lines = decode(data)[0]
            else:
                current = Position(descriptor)
                lines = [line for batch in read_on(current) for line in batch]
                if name == path:
                    position = current
                else:
                    current.close()
            kept.append(lines)
            count += len(lines)
    everything = [line for lines in reversed(kept) for line in lines]
    if tail is not None:
        everything = everything[-tail:] if tail else []
    for start in range(0, len(everything), 4096):
        yield everything[start : start + 4096]
    yield position


def read_on(position: Position) -> Iterator[list[LocalLine]]:
    """Whole entries from a position to the end of its file."""
    while data := os.read(position.descriptor, _BLOCK):
        lines, used = decode(position.rest + data)
        position.rest = (position.rest + data)[used:]
        if lines:
            yield lines
