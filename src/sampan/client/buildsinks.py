"""Where the outputs of a build go on this side: a file, standard output, a directory."""

from __future__ import annotations

import os
import queue
import shutil
import sys
import tempfile
import threading

from sampan.client.buildwire import Sink
from sampan.client.tarstream import PieceReader, Unpacker
from sampan.errors import InvalidParameter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


def open_sink(destination: str, *, directory: bool, delete: bool) -> Sink:
    """The sink for ``destination``: ``-`` is standard output, else a file or a directory."""
    if destination == "-":
        return _Stdout()
    return _Directory(destination, delete=delete) if directory else _File(destination)


class _Stdout(Sink):
    def write(self, data: bytes) -> None:
        sys.stdout.buffer.write(data)

    def close(self) -> None:
        sys.stdout.buffer.flush()

    def abandon(self) -> None:
        sys.stdout.buffer.flush()


class _File(Sink):
    """A file that appears when it is complete."""

    def __init__(self, path: str) -> None:
        if os.path.isdir(path):
            raise InvalidParameter(
                f"destination {path} is a directory: name a file for the archive"
            )
        self._path = path
        directory = os.path.dirname(os.path.abspath(path))
        os.makedirs(directory, exist_ok=True)
        descriptor, self._temporary = tempfile.mkstemp(prefix=".build-", dir=directory)
        self._file = os.fdopen(descriptor, "wb")

    def write(self, data: bytes) -> None:
        self._file.write(data)

    def close(self) -> None:
        mask = os.umask(0)
        os.umask(mask)
        os.fchmod(self._file.fileno(), 0o666 & ~mask)
        self._file.close()
        os.replace(self._temporary, self._path)

    def abandon(self) -> None:
        self._file.close()
        os.unlink(self._temporary)


class _Directory(Sink):
    """A directory the archive is unpacked into, in a thread beside the conversation.

    With ``delete`` the directory then holds nothing else; files are put in place after all of
    them have arrived.
    """

    def __init__(self, path: str, *, delete: bool) -> None:
        self._path = path
        os.makedirs(path, exist_ok=True)
        self._pieces: queue.Queue[bytes | None] = queue.Queue(maxsize=16)
        self._target = path
        if delete:
            self._target = tempfile.mkdtemp(prefix=".build-", dir=os.path.dirname(_plain(path)))
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._unpack)
        self._thread.start()

    def _unpack(self) -> None:
        unpacker = Unpacker(self._target, str, ownership=os.geteuid() == 0)
        try:
            unpacker.unpack(PieceReader(self._read()))
        except BaseException as error:
            self._failed = error
        for _ in self._read():
            pass

    def _read(self) -> Iterator[bytes]:
        while (piece := self._pieces.get()) is not None:
            yield piece
        self._pieces.put(None)  # whoever reads next finds the end as well

    def write(self, data: bytes) -> None:
        self._pieces.put(data)

    def close(self) -> None:
        self._pieces.put(None)
        self._thread.join()
        if self._failed is not None:
            self._discard()
            raise self._failed
        if self._target != self._path:
            for name in os.listdir(self._path):
                _remove(os.path.join(self._path, name))
            for name in os.listdir(self._target):
                os.replace(os.path.join(self._target, name), os.path.join(self._path, name))
            os.rmdir(self._target)

    def abandon(self) -> None:
        self._pieces.put(None)
        self._thread.join()
        self._discard()

    def _discard(self) -> None:
        if self._target != self._path:
            shutil.rmtree(self._target, ignore_errors=True)


def _plain(path: str) -> str:
    return os.path.abspath(path).rstrip("/")


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)
