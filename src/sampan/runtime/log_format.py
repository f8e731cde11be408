"""Container output as log records, in Docker's formats (pure).

``json-file``, one record a line (moby daemon/logger/jsonfilelog/jsonlog)::

    {"log":"TEXT\\n","stream":"stdout","attrs":{...},"time":"RFC3339Nano"}

A line without its end is held back until it is complete, 16 KiB long (then it is logged as it is,
without a newline, and what follows as a record of its own) or the stream has ended.

Whole batches of lines are escaped and framed by a handful of passes over the bytes, never line by
line: the log must not be what slows a container down.
"""

from __future__ import annotations

import codecs
import json
import os
import struct
import time
from collections.abc import Mapping

PARTIAL_SIZE = 16 * 1024

_SPECIAL = bytes(sorted({*range(0x20), *b'"\\<>&'} - {0x0A}))
_ORDINARY = bytes(set(range(256)) - set(_SPECIAL))
_SHORT = {0x0D: b"\\r", 0x22: b'\\"', 0x5C: b"\\\\"}
_ESCAPES = {byte: _SHORT.get(byte, b"\\u%04x" % byte) for byte in _SPECIAL}
_INVALID = "sampan.log.invalid"


def _each_byte(error: UnicodeError) -> tuple[str, int]:
    """As Go's encoder: every byte that is not part of a character becomes one \\ufffd."""
    assert isinstance(error, UnicodeDecodeError)
    return "\\ufffd" * (error.end - error.start), error.end


codecs.register_error(_INVALID, _each_byte)


def escape(data: bytes) -> bytes:
    """``data`` as the inside of a JSON string by Docker's rules; newlines stay as they are."""
    found = data.translate(None, _ORDINARY)
    if found:
        if 0x5C in found:
            data = data.replace(b"\\", b"\\\\")
        for byte in set(found) - {0x5C}:
            data = data.replace(bytes((byte,)), _ESCAPES[byte])
    if not data.isascii():
        data = data.decode("utf-8", _INVALID).encode()
        # Legal in JSON but not in JavaScript: U+2028 and U+2029.
        data = data.replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029")
    return data


def timestamp(nanoseconds: int) -> bytes:
    """RFC 3339 in UTC, with as many fractional digits as needed (Go's RFC3339Nano)."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    fraction = f".{rest:09d}".rstrip("0") if rest else ""
    return f"{text}{fraction}Z".encode()


class Lines:
    """Cuts one stream into batches of whole lines and partial pieces."""

    __slots__ = ("pending",)

    def __init__(self, pending: bytes = b"") -> None:
        """``pending``: the beginning of a line, from before."""
        self.pending = pending

    def feed(self, data: bytes) -> list[tuple[bytes, bool]]:
        """(bytes, whole) in order: ``whole`` is one or more lines, each with its newline, else it
        is a piece of 16 KiB of a longer line."""
        if self.pending:
            data = self.pending + data
        batches: list[tuple[bytes, bool]] = []
        start = position = 0
        end = len(data)
        while end - position >= PARTIAL_SIZE:
            newline = data.rfind(b"\n", position, position + PARTIAL_SIZE)
            if newline >= 0:
                position = newline + 1
                continue
            if position > start:
                batches.append((data[start:position], True))
            batches.append((data[position : position + PARTIAL_SIZE], False))
            position += PARTIAL_SIZE
            start = position
        newline = data.rfind(b"\n", position)
        if newline >= 0:
            position = newline + 1
        if position > start:
            whole = data if not start and position == end else data[start:position]
            batches.append((whole, True))
        self.pending = data[position:]
        return batches

    def finish(self) -> list[tuple[bytes, bool]]:
        """What is left at the end of the stream."""
        rest, self.pending = self.pending, b""
        return [(rest, False)] if rest else []


class JsonFormat:
    """Docker's json-file records."""

    __slots__ = ("_attrs",)

    def __init__(self, attrs: Mapping[str, str]) -> None:
        self._attrs = b""
        if attrs:
            text = json.dumps(
                dict(attrs), sort_keys=True, ensure_ascii=False, separators=(",", ":")
            )
            for character in "<>&\u2028\u2029":
                text = text.replace(character, f"\\u{ord(character):04x}")
            self._attrs = b',"attrs":' + text.encode("utf-8", "replace")

    def records(self, stream: str, data: bytes, whole: bool, now: int) -> bytes:
        """Records of one batch of :class:`Lines`; ``now`` in nanoseconds since the epoch."""
        head = b'{"log":"'
        tail = b'","stream":"%s"%s,"time":"%s"}\n' % (
            stream.encode(),
            self._attrs,
            timestamp(now),
        )
        if not whole:
            return head + escape(data) + tail
        tail = b"\\n" + tail
        return head + escape(data[:-1]).replace(b"\n", tail + head) + tail

    def boundary(self, records: bytes, at_least: int) -> int:
        """Where the record that reaches ``at_least`` bytes ends."""
        return records.index(b"\n", max(at_least - 1, 0)) + 1


class LocalFormat:
    """Docker's ``local`` records: a LogEntry protobuf between two big-endian lengths."""

    __slots__ = ("_ordinal", "_partial")

    def __init__(self) -> None:
        self._partial: dict[str, str] = {}
        self._ordinal: dict[str, int] = {}

    def records(self, stream: str, data: bytes, whole: bool, now: int) -> bytes:
        """As :meth:`JsonFormat.records`."""
        if not whole:
            return self._piece(stream, data, now, last=False)
        first, *rest = data[:-1].split(b"\n")
        parts = [
            self._piece(stream, first, now, last=True)
            if stream in self._partial
            else _entry(stream, first, now, b"")
        ]
        parts += [_entry(stream, line, now, b"") for line in rest]
        return b"".join(parts)

    def _piece(self, stream: str, data: bytes, now: int, *, last: bool) -> bytes:
        identifier = self._partial.setdefault(stream, os.urandom(32).hex())
        ordinal = self._ordinal[stream] = self._ordinal.get(stream, 0) + 1
        metadata = b"\x08\x01" if last else b""
        metadata += b"\x12" + _sized(identifier.encode()) + b"\x18" + _varint(ordinal)
        if last:
            del self._partial[stream], self._ordinal[stream]
        return _entry(stream, data, now, b"\x20\x01\x2a" + _sized(metadata))

    def boundary(self, records: bytes, at_least: int) -> int:
        """As :meth:`JsonFormat.boundary`."""
        position = 0
        while position < at_least:
            position += int.from_bytes(records[position : position + 4], "big") + 8
        return position


def _entry(stream: str, line: bytes, now: int, partial: bytes) -> bytes:
    body = b"\x0a" + _sized(stream.encode()) + b"\x10" + _varint(now)
    body += (b"\x1a" + _sized(line) if line else b"") + partial
    length = struct.pack(">I", len(body))
    return length + body + length


def _sized(data: bytes) -> bytes:
    return _varint(len(data)) + data


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
