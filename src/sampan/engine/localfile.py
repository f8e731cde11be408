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


def decode(data: bytes) -> tuple[list[LogLine], int]:
    """The whole entries at the start of ``data``, and how many bytes they are."""
    lines, at = [], 0
    while len(data) - at >= 8:
        size = int.from_bytes(data[at : at + 4], "big")
        if len(data) - at < size + 8:
            break
        lines.append(_entry(data[at + 4 : at + 4 + size]))
        at += size + 8
    return lines, at


def _entry(message: bytes) -> LogLine:
    source, stamp, line, partial, at = "stdout", 0, b"", False, 0
    while at < len(message):
        key, at = _varint(message, at)
        if key & 7 == 0:
            value, at = _varint(message, at)
            if key >> 3 == 2:
                stamp = value
            elif key >> 3 == 4:
                partial = bool(value)
        else:
            length, at = _varint(message, at)
            payload = message[at : at + length]
            at += length
            if key >> 3 == 1:
                source = payload.decode(errors="replace")
            elif key >> 3 == 3:
                line = payload
    text = line.decode("utf-8", "replace")
    return LogLine(
        log=text if partial else f"{text}\n", stream=source, time=rfc3339(stamp).rstrip("Z") + "Z"
    )


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


def blocks(path: Path, tail: int | None) -> Iterator[list[LogLine] | Position]:
    """Entries of all files from the ``tail`` last on; at the end, where to go on from."""
    names = rotated(path)
    kept: list[list[LogLine]] = []
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


def read_on(position: Position) -> Iterator[list[LogLine]]:
    """Whole entries from a position to the end of its file."""
    while data := os.read(position.descriptor, _BLOCK):
        lines, used = decode(position.rest + data)
        position.rest = (position.rest + data)[used:]
        if lines:
            yield lines
