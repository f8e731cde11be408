"""Bounded log files: appended to, rotated at a record's end, optionally compressed.

A full disk loses records, never a container: what cannot be written whole is taken back, counted
and dropped.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
import zlib
from collections.abc import Mapping
from typing import Protocol

from sampan.runtime.log_format import JsonFormat, Lines, LocalFormat

_GZIP = 31  # zlib.compressobj: window bits for a gzip container


class Format(Protocol):
    """How records are written; see :mod:`sampan.runtime.log_format`."""

    def records(self, stream: str, data: bytes, whole: bool, now: int) -> bytes: ...
    def boundary(self, records: bytes, at_least: int) -> int: ...


class RotatedFile:
    """``path``, and older ones as ``path.1``, ``path.2``, ... (``.gz`` when compressed)."""

    def __init__(self, path: str, *, max_size: int, max_file: int, compress: bool) -> None:
        """``max_size`` bytes each (0: no bound), ``max_file`` of them. Raises :class:`OSError`."""
        self._path = path
        self._max_size = max_size
        self._max_file = max(max_file, 1)
        self._compress = compress
        self._compressor = 0
        self.lost = 0
        self._open(os.O_APPEND)

    def _open(self, flags: int) -> None:
        flags |= os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(self._path, flags, 0o640)
        self._size = os.fstat(self._fd).st_size

    def write(self, records: bytes, form: Format) -> None:
        """Append whole records, rotating between them. What the disk refuses is lost."""
        while records:
            if self._max_size and self._size >= self._max_size:
                self._rotate()
            part = records
            if self._max_size and self._size + len(records) > self._max_size:
                part = records[: form.boundary(records, self._max_size - self._size)]
            self._append(part)
            records = records[len(part) :]

    def _append(self, part: bytes) -> None:
        written = 0
        try:
            while written < len(part):
                written += os.write(self._fd, part[written:] if written else part)
        except OSError:
            self.lost += len(part)
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._size)
            return
        self._size += written

    def _rotate(self) -> None:
        self._end_compressor()
        try:
            if self._max_file == 1:
                os.ftruncate(self._fd, 0)
                self._size = 0
                return
            for number in range(self._max_file - 1, 1, -1):
                self._move(number - 1, number)
            os.replace(self._path, f"{self._path}.1")
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{self._path}.1.gz")
            old = self._fd
            self._open(os.O_TRUNC)
            os.close(old)
        except OSError:
            # The directory is full or gone: go on with the file we have; the bound is kept by
            # starting it again.
            os.ftruncate(self._fd, 0)
            self._size = 0
            return
        if self._compress:
            self._start_compressor(f"{self._path}.1")

    def _move(self, older: int, newer: int) -> None:
        for suffix, other in (("", ".gz"), (".gz", "")):
            with contextlib.suppress(FileNotFoundError):
                os.replace(f"{self._path}.{older}{suffix}", f"{self._path}.{newer}{suffix}")
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(f"{self._path}.{newer}{other}")

    def _start_compressor(self, path: str) -> None:
        """Compress in a child, so that output never waits for it."""
        self._compressor = os.fork()
        if self._compressor == 0:
            try:
                os.nice(10)
                _compress(path)
            finally:
                os._exit(0)

    def _end_compressor(self) -> None:
        """Files are about to change names: a compressor that is not done yet gives up."""
        if not self._compressor:
            return
        pid, self._compressor = self._compressor, 0
        with contextlib.suppress(ChildProcessError):
            if os.waitpid(pid, os.WNOHANG)[0] == 0:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{self._path}.1.tmp")

    @property
    def compressing(self) -> bool:
        """Whether a compressor runs or has not been collected yet."""
        return self._compressor != 0

    def reap(self) -> None:
        """Collect a compressor that has ended."""
        if self._compressor:
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(self._compressor, os.WNOHANG)[0]:
                    self._compressor = 0

    def close(self) -> None:
        """Close the file; a running compressor is waited for."""
        if self._compressor:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._compressor, 0)
            self._compressor = 0
        os.close(self._fd)


def _compress(path: str) -> None:
    temporary = f"{path}.tmp"
    packer = zlib.compressobj(wbits=_GZIP)
    with open(path, "rb") as source, open(temporary, "wb") as target:
        while data := source.read(1 << 20):
            target.write(packer.compress(data))
        target.write(packer.flush())
        os.fsync(target.fileno())
    os.replace(temporary, f"{path}.gz")
    os.unlink(path)


class Log:
    """The log of one container: output of streams goes in, records come to the file."""

    def __init__(self, file: RotatedFile, form: Format, pending: Mapping[str, bytes]) -> None:
        self._file = file
        self._format = form
        self._lines = {name: Lines(pending.get(name, b"")) for name in ("stdout", "stderr")}

    @classmethod
    def open(
        cls,
        driver: str,
        path: str,
        *,
        max_size: int,
        max_file: int,
        compress: bool,
        attrs: dict[str, str],
        pending: Mapping[str, bytes],
    ) -> Log:
        """The log of ``driver`` (``json-file`` or ``local``). Raises :class:`OSError`.

        ``pending``: parts of lines another object left (:meth:`pending`).
        """
        form: Format = JsonFormat(attrs) if driver == "json-file" else LocalFormat()
        file = RotatedFile(path, max_size=max_size, max_file=max_file, compress=compress)
        return cls(file, form, pending)

    @property
    def lost(self) -> int:
        """Bytes of records that could not be written."""
        return self._file.lost

    def pending(self) -> dict[str, bytes]:
        """Parts of lines that wait for their end."""
        return {name: lines.pending for name, lines in self._lines.items()}

    @property
    def busy(self) -> bool:
        """Whether a rotated file is being compressed."""
        self._file.reap()
        return self._file.compressing

    def write(self, stream: str, data: bytes) -> None:
        """Log what ``stream`` (``stdout`` or ``stderr``) put out."""
        self._write(stream, self._lines[stream].feed(data))

    def finish(self, stream: str) -> None:
        """Log what is left of an ended stream."""
        self._write(stream, self._lines[stream].finish())

    def _write(self, stream: str, batches: list[tuple[bytes, bool]]) -> None:
        if not batches:
            return
        now = time.time_ns()
        for data, whole in batches:
            self._file.write(self._format.records(stream, data, whole, now), self._format)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
