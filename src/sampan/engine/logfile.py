"""A container's log read back: json-file format, rotated files, from the end or from a time.

``path`` is written by the monitor; ``path.1`` was written before it, ``path.2`` before that, each
perhaps compressed (``.gz``). A line is whole once its newline is there. Everything here blocks.
"""

from __future__ import annotations

import calendar
import contextlib
import os
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from urllib.parse import quote_plus

import msgspec
from isal import igzip

from sampan.engine.options import LogsOptions

_BLOCK = 1 << 18
_STREAMS = {"stdout": 1, "stderr": 2}


class LogLine(msgspec.Struct, kw_only=True):
    """One line as the json-file driver writes it (Docker's format)."""

    log: str = ""
    stream: str = "stdout"
    time: str = ""
    attrs: dict[str, str] | None = None


_DECODER = msgspec.json.Decoder(LogLine)


def decode(block: bytes) -> list[LogLine]:
    """The lines of a block; one that is damaged (a crash tore it) is left out."""
    try:
        return _DECODER.decode_lines(block)
    except msgspec.DecodeError:
        lines = []
        for raw in block.split(b"\n"):
            with contextlib.suppress(msgspec.DecodeError):
                if raw:
                    lines.append(_DECODER.decode(raw))
        return lines


@lru_cache(maxsize=1024)
def _seconds(text: str) -> int:
    return calendar.timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))


def nanoseconds(stamp: str) -> int:
    """Unix nanoseconds of a line's time (UTC, trailing zeros cut)."""
    fraction = stamp[20:].rstrip("Z")
    return _seconds(stamp[:19]) * 1_000_000_000 + int(fraction.ljust(9, "0") or 0)


def fixed(stamp: str) -> str:
    """A line's time with all nine fractional digits, as ``logs -t`` prints it."""
    return f"{stamp[:19]}.{stamp[20:].rstrip('Z').ljust(9, '0')}Z"


@dataclass(frozen=True, slots=True, kw_only=True)
class Renderer:
    """Turns lines into what a client gets: chosen streams and times, framed unless ``tty``."""

    options: LogsOptions
    tty: bool

    def render(self, lines: Sequence[LogLine]) -> tuple[bytes, bool]:
        """The output for ``lines``, and whether one lay beyond ``until``."""
        options = self.options
        out: list[bytes] = []
        since, until = int(options.since * 1e9), int(options.until * 1e9)
        plain = not (since or until or options.timestamps or options.details)
        for line in lines:
            number = _STREAMS.get(line.stream, 1)
            if not (options.stdout if number == 1 else options.stderr):
                continue
            text = line.log
            if not plain:
                if since or until:
                    at = nanoseconds(line.time)
                    if at < since:
                        continue
                    if until and at > until:
                        return b"".join(out), True
                text = self._decorate(line)
            data = text.encode("utf-8", "surrogatepass")
            if not self.tty:
                out.append(struct.pack(">BxxxL", number, len(data)))
            out.append(data)
        return b"".join(out), False

    def _decorate(self, line: LogLine) -> str:
        text = line.log
        if self.options.details:
            pairs = sorted((line.attrs or {}).items())
            attrs = ",".join(f"{quote_plus(key)}={quote_plus(value)}" for key, value in pairs)
            text = f"{attrs} {text}"
        if self.options.timestamps:
            text = f"{fixed(line.time)} {text}"
        return text


def rotated(path: Path) -> list[Path]:
    """The log's files that exist, oldest first, the current one last."""
    found, missing = [], 0
    for number in range(1, 10_000):
        for suffix in (f".{number}", f".{number}.gz"):
            candidate = Path(f"{path}{suffix}")
            if candidate.exists():
                found.append(candidate)
                missing = 0
                break
        else:
            missing += 1
            if missing == 2:  # one is missing for a moment while files are renamed
                break
    found.reverse()
    return [*found, path] if path.exists() else found


@dataclass(slots=True)
class Position:
    """Where a reader is: an open file and what of an unfinished line it has read."""

    descriptor: int
    rest: bytes = b""

    def close(self) -> None:
        """Close the file."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def _open_all(path: Path) -> list[tuple[Path, int]]:
    """All files of the log, of one moment: opened again when a rotation came between."""
    while True:
        names, current = rotated(path), _inode(path)
        opened: list[tuple[Path, int]] = []
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                opened.append((name, os.open(name, os.O_RDONLY | os.O_CLOEXEC)))
        if len(opened) == len(names) and (rotated(path), _inode(path)) == (names, current):
            return opened
        for _, descriptor in opened:
            os.close(descriptor)


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return 0


def blocks(path: Path, tail: int | None) -> Iterator[bytes | Position]:
    """Whole lines of all files from the ``tail`` last on; at the end, where to go on from.

    The files are opened before the first is read, so a rotation meanwhile loses nothing.
    """
    opened: list[tuple[Path, int]] = []
    try:
        opened = _open_all(path)
        skip, starts = _starts(opened, tail)
        position = Position(-1)
        for index, (name, descriptor) in enumerate(opened):
            last = index == len(opened) - 1
            if index < skip:
                continue
            if name.suffix == ".gz":
                yield from _from(_inflate(descriptor), starts.get(index, 0))
                continue
            os.lseek(descriptor, starts.get(index, 0), os.SEEK_SET)
            position = Position(descriptor if last else os.dup(descriptor))
            if last:
                opened.pop()
            yield from read_on(position)
            if not last:
                position.close()
        yield position
    finally:
        for _, descriptor in opened:
            os.close(descriptor)


def read_on(position: Position) -> Iterator[bytes]:
    """Whole lines from a position to the end of its file."""
    while data := os.read(position.descriptor, _BLOCK):
        data = position.rest + data
        end = data.rfind(b"\n") + 1
        position.rest = data[end:]
        if end:
            yield data[:end]


def _inflate(descriptor: int) -> bytes:
    os.lseek(descriptor, 0, os.SEEK_SET)
    with os.fdopen(os.dup(descriptor), "rb") as packed:
        return bytes(igzip.decompress(packed.read()))  # type: ignore[no-untyped-call]


def _from(data: bytes, start: int) -> Iterator[bytes]:
    for offset in range(start, len(data), _BLOCK):
        yield (
            data[offset : offset + _BLOCK] if offset + _BLOCK >= len(data) else _whole(data, offset)
        )


def _whole(data: bytes, offset: int) -> bytes:
    """A block that begins and ends at line ends (its neighbours do the same)."""
    begin = offset if offset == 0 else data.rfind(b"\n", 0, offset) + 1
    end = data.rfind(b"\n", 0, offset + _BLOCK) + 1
    return data[begin:end]


def _starts(opened: Sequence[tuple[Path, int]], tail: int | None) -> tuple[int, dict[int, int]]:
    """How many files to leave out, and the offset in the first one read."""
    if tail is None:
        return 0, {}
    if tail == 0:
        last = len(opened) - 1
        if last < 0:
            return 0, {}
        return last, {last: os.fstat(opened[last][1]).st_size}
    wanted = tail
    for index in range(len(opened) - 1, -1, -1):
        name, descriptor = opened[index]
        if name.suffix == ".gz":
            data = _inflate(descriptor)
            offset, found = _last_lines(data, wanted)
        else:
            offset, found = _last_lines_of_file(descriptor, wanted)
        if found >= wanted:
            return index, {index: offset}
        wanted -= found
    return 0, {}


def _last_lines(data: bytes, wanted: int) -> tuple[int, int]:
    """Offset of the ``wanted``-th line from the end, and how many lines there are at most."""
    end = len(data) if not data or data.endswith(b"\n") else data.rfind(b"\n") + 1
    found, at = 0, end
    while found < wanted and at > 0:
        at = data.rfind(b"\n", 0, at - 1) + 1
        found += 1
    return at, found


def _last_lines_of_file(descriptor: int, wanted: int) -> tuple[int, int]:
    size = os.fstat(descriptor).st_size
    length = _BLOCK
    while True:
        start = max(0, size - length)
        data = os.pread(descriptor, size - start, start)
        offset, found = _last_lines(data, wanted + (1 if start else 0))
        if start == 0 or found > wanted:
            if start:
                offset, found = _last_lines(data, wanted)
            return start + offset, found
        length *= 4


def successor(path: Path, position: Position) -> Position | None:
    """The next file when the one being read was rotated away; None while it is the current one."""
    mine = os.fstat(position.descriptor)
    with contextlib.suppress(FileNotFoundError):
        if os.stat(path).st_ino == mine.st_ino:
            return None
    following = path
    for number in range(1, 10_000):
        try:
            inode = os.stat(f"{path}.{number}").st_ino
        except FileNotFoundError:
            break
        if inode == mine.st_ino:
            break
        following = Path(f"{path}.{number}")
    else:
        following = path
    try:
        return Position(os.open(following, os.O_RDONLY | os.O_CLOEXEC))
    except FileNotFoundError:
        return None
