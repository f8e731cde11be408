"""The registry's store on a file system, local or shared (NFS and the like) between servers.

A key is a path below the root. Objects are replaced by rename(2), so a reader of an open file
keeps what it opened. Uploads are files appended to under flock(2); they live in the same file
system, and storing one is a link(2).

Metadata objects are a few bytes in the page cache: reading one takes microseconds, less than
handing it to a thread, and is done in the event loop. Everything that writes, syncs or reads much
leaves the loop through one small thread pool.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import ParamSpec, TypeVar

from sampan.content.atomic import TEMPORARY_PREFIX, atomic_write, fsync_directory
from sampan.errors import Unavailable
from sampan.registry.server.driver import Entry, LocalFile, UploadBusy

_P = ParamSpec("_P")
_T = TypeVar("_T")
_THREADS = 8
_PAGE = 512
_BATCH = 1 << 20
_READ = 1 << 20


class FileDriver:
    """A :class:`~sampan.registry.server.driver.Driver` below the directory ``root``."""

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._root = root
        self._objects = str(root) + "/"
        self._uploads = root / "_uploads"
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="registry-store")

    async def _thread(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._pool, lambda: function(*args, **kwargs))
        except OSError as error:
            raise _unavailable(error) from error

    async def get(self, key: str) -> bytes | None:
        try:
            fd = os.open(self._objects + key, os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _unavailable(error) from error
        try:
            pieces = []
            while piece := os.read(fd, _READ):
                pieces.append(piece)
            return b"".join(pieces)
        finally:
            os.close(fd)

    async def put(self, key: str, data: bytes) -> None:
        await self._thread(self._put, key, data)

    def _put(self, key: str, data: bytes) -> None:
        path = self._root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, data)

    async def touch(self, key: str) -> None:
        try:
            os.utime(self._objects + key)
        except FileNotFoundError:
            await self._thread(self._create, key)
        except OSError as error:
            raise _unavailable(error) from error

    def _create(self, key: str) -> None:
        path = self._root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)

    async def stat(self, key: str) -> Entry | None:
        try:
            status = os.stat(self._objects + key)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _unavailable(error) from error
        return Entry(key, status.st_size, status.st_mtime)

    async def delete(self, key: str) -> bool:
        try:
            os.unlink(self._objects + key)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise _unavailable(error) from error
        return True

    async def list(self, prefix: str, after: str = "") -> AsyncIterator[Entry]:
        entries = self._walk(prefix, after)
        while page := await self._thread(lambda: list(islice(entries, _PAGE))):
            for entry in page:
                yield entry

    def _walk(self, prefix: str, after: str) -> Iterator[Entry]:
        """Entries below the directory ``prefix`` in byte order of their keys."""
        try:
            with os.scandir(self._objects + prefix) as found:
                children = sorted(
                    (child.name + "/" if child.is_dir(follow_symlinks=False) else child.name)
                    for child in found
                    if not child.name.startswith(TEMPORARY_PREFIX)
                )
        except (FileNotFoundError, NotADirectoryError):
            return
        for name in children:
            key = prefix + name
            if name.endswith("/"):
                if after.startswith(key) or key > after:
                    yield from self._walk(key, after)
            elif key > after:
                with suppress(FileNotFoundError):  # deleted since the directory was read
                    status = os.stat(self._objects + key)
                    yield Entry(key, status.st_size, status.st_mtime)

    async def locate(self, key: str, content_type: str) -> LocalFile:
        del content_type  # a file is a file
        return LocalFile(self._root / key)

    async def read(self, key: str, start: int, end: int) -> AsyncIterator[bytes]:
        async for piece in self._read_file(self._root / key, start, end):
            yield piece

    async def _read_file(self, path: Path, start: int, end: int) -> AsyncIterator[bytes]:
        fd = await self._thread(os.open, path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            while start < end:
                piece = await self._thread(os.pread, fd, min(_READ, end - start), start)
                if not piece:
                    raise Unavailable("the registry's store failed: a blob is too short")
                start += len(piece)
                yield piece
        finally:
            os.close(fd)

    def _upload(self, upload: str) -> Path:
        return self._uploads / upload

    async def upload_append(self, upload: str, offset: int, data: AsyncIterator[bytes]) -> int:
        fd = await self._thread(self._lock_upload, upload, offset)
        size = offset
        batch: list[bytes] = []
        pending = 0
        try:
            try:
                async for piece in data:
                    batch.append(piece)
                    pending += len(piece)
                    if pending >= _BATCH:
                        full, batch, pending = batch, [], 0
                        size += await self._thread(_write_all, fd, full)
            finally:
                if batch:
                    size += await self._thread(_write_all, fd, batch)
            return size
        finally:
            os.close(fd)

    def _lock_upload(self, upload: str, offset: int) -> int:
        """The upload's file, open for appending and ours alone until it is closed."""
        self._uploads.mkdir(exist_ok=True)
        fd = os.open(
            self._upload(upload), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(fd).st_size != offset:
                raise UploadBusy("another request has appended to this upload")
        except BlockingIOError as error:
            os.close(fd)
            raise UploadBusy("another request is appending to this upload") from error
        except BaseException:
            os.close(fd)
            raise
        return fd

    async def upload_size(self, upload: str) -> int:
        try:
            return os.stat(self._upload(upload)).st_size
        except FileNotFoundError:
            return 0

    async def upload_read(self, upload: str) -> AsyncIterator[bytes]:
        if size := await self.upload_size(upload):
            async for piece in self._read_file(self._upload(upload), 0, size):
                yield piece

    async def upload_store(self, upload: str, key: str) -> None:
        await self._thread(self._store, upload, key)

    def _store(self, upload: str, key: str) -> None:
        target = self._root / key
        if target.exists():
            return
        source = self._upload(upload)
        self._uploads.mkdir(exist_ok=True)
        fd = os.open(source, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        target.parent.mkdir(parents=True, exist_ok=True)
        # A link first and then a rename: link(2) itself would fail where another server was faster.
        temporary = target.with_name(TEMPORARY_PREFIX + secrets.token_hex(8))
        os.link(source, temporary)
        os.rename(temporary, target)
        with suppress(FileNotFoundError):  # rename(2) of two links to one file does nothing
            os.unlink(temporary)
        fsync_directory(target.parent)

    async def upload_discard(self, upload: str) -> None:
        with suppress(FileNotFoundError):
            await self._thread(self._remove, self._upload(upload))

    @staticmethod
    def _remove(path: Path) -> None:
        path.unlink(missing_ok=True)

    async def uploads(self) -> AsyncIterator[Entry]:
        async for entry in self.list("_uploads/"):
            yield Entry(entry.key.removeprefix("_uploads/"), entry.size, entry.modified)

    async def tidy(self, oldest: float) -> None:
        await self._thread(self._tidy, oldest)

    def _tidy(self, oldest: float) -> None:
        for path in self._root.rglob(f"{TEMPORARY_PREFIX}*"):
            with suppress(FileNotFoundError):  # finished meanwhile
                if path.is_file() and path.stat().st_mtime < oldest:
                    path.unlink()

    async def close(self) -> None:
        self._pool.shutdown(wait=False)


def _write_all(fd: int, pieces: list[bytes]) -> int:
    """Write every byte of ``pieces``; how many there were."""
    total = 0
    for piece in pieces:
        view = memoryview(piece)
        total += len(view)
        while view:
            view = view[os.write(fd, view) :]
    return total


def _unavailable(error: OSError) -> Unavailable:
    return Unavailable(f"the registry's store failed: {error.strerror}: {error.filename}")
