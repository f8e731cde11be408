"""Blobs in files named by digest.

::

    root/blobs/sha256/<hex>     whole, verified, read-only
    root/ingest/a-<random>      anonymous writers, gone with them
    root/ingest/r-<hash>        resumable ingest, with its ref in r-<hash>.ref

A live writer holds flock(2) on its ingest; a sweep takes only what nobody holds.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, cast

from sampan.content import DOCUMENT_LIMIT, BlobInfo, Buffer, ContentWriter
from sampan.content.atomic import TEMPORARY_PREFIX, atomic_write, fsync_directory
from sampan.content.follow import Following, Live
from sampan.errors import (
    Conflict,
    Corrupt,
    DigestMismatch,
    InvalidParameter,
    NotFound,
    SampanError,
    storage_error,
)
from sampan.model.digest import Digest

_CHUNK = 1 << 20
_ALGORITHMS = ("sha256", "sha384", "sha512")


class FileStore:
    """A :class:`~sampan.content.ContentStore` below directory ``root``, which is made if need be.

    Several processes may share one root; :meth:`follow` sees only writers of its own process.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._blobs = root / "blobs"
        self._ingest = root / "ingest"
        for directory in (*(self._blobs / name for name in _ALGORITHMS), self._ingest):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._live = Live()

    def writer(
        self,
        *,
        expected: Digest | None = None,
        size: int | None = None,
        ref: str | None = None,
        algorithm: str = "sha256",
    ) -> ContentWriter:
        """See :meth:`sampan.content.ContentStore.writer`."""
        if algorithm not in _ALGORITHMS:
            raise InvalidParameter(f"unsupported digest algorithm: {algorithm!r}")
        try:
            return _Writer(self, expected=expected, size=size, ref=ref, algorithm=algorithm)
        except OSError as error:
            raise storage_error(error, "preparing to store content") from error

    def open(self, digest: Digest) -> BinaryIO:
        """See :meth:`sampan.content.ContentStore.open`."""
        try:
            return open(self._path(digest), "rb", buffering=0)
        except FileNotFoundError as error:
            raise _missing(digest) from error

    def follow(self, digest: Digest, *, timeout: float) -> BinaryIO:
        """See :meth:`sampan.content.ContentStore.follow`."""
        return cast(BinaryIO, Following(self._live, digest, self._path(digest), timeout))

    def read(self, digest: Digest, *, limit: int = DOCUMENT_LIMIT) -> bytes:
        """See :meth:`sampan.content.ContentStore.read`."""
        with self.open(digest) as blob:
            if os.fstat(blob.fileno()).st_size > limit:
                raise Corrupt(f"content {digest} is larger than {limit} bytes")
            data = blob.read()
        if Digest.of(data, digest.algorithm) != digest:
            raise Corrupt(f"stored content {digest} does not have its digest")
        return data

    def path(self, digest: Digest) -> Path:
        """See :meth:`sampan.content.ContentStore.path`."""
        path = self._path(digest)
        if not path.exists():
            raise _missing(digest)
        return path

    def size(self, digest: Digest) -> int:
        """See :meth:`sampan.content.ContentStore.size`."""
        try:
            return self._path(digest).stat().st_size
        except FileNotFoundError as error:
            raise _missing(digest) from error

    def exists(self, digest: Digest) -> bool:
        """See :meth:`sampan.content.ContentStore.exists`."""
        return self._path(digest).exists()

    def add(self, data: bytes, *, expected: Digest | None = None) -> Digest:
        """See :meth:`sampan.content.ContentStore.add`."""
        digest = Digest.of(data, expected.algorithm if expected else "sha256")
        if expected is not None and digest != expected:
            raise DigestMismatch(f"content has digest {digest}, not {expected}")
        if not self.exists(digest):
            try:
                atomic_write(self._path(digest), data, mode=0o444)
            except OSError as error:
                raise storage_error(error, f"storing {digest}") from error
        return digest

    def delete(self, digest: Digest) -> bool:
        """See :meth:`sampan.content.ContentStore.delete`."""
        try:
            self._path(digest).unlink()
        except FileNotFoundError:
            return False
        return True

    def walk(self) -> Iterator[BlobInfo]:
        """See :meth:`sampan.content.ContentStore.walk`."""
        for algorithm in _ALGORITHMS:
            with os.scandir(self._blobs / algorithm) as entries:
                for entry in entries:
                    if entry.name.startswith(TEMPORARY_PREFIX):
                        continue
                    try:
                        status = entry.stat()
                    except FileNotFoundError:  # deleted since the directory was read
                        continue
                    yield BlobInfo(
                        digest=Digest(algorithm, entry.name),
                        size=status.st_size,
                        modified=status.st_mtime,
                    )

    def ingests(self) -> Iterator[tuple[str, int]]:
        """See :meth:`sampan.content.ContentStore.ingests`."""
        for name in sorted(self._ingest.glob("r-*.ref")):
            try:
                yield name.read_text(), name.with_suffix("").stat().st_size
            except FileNotFoundError:  # finished meanwhile
                continue

    def abort(self, ref: str) -> bool:
        """See :meth:`sampan.content.ContentStore.abort`."""
        path = self._ref_path(ref)
        return path.exists() and self._drop(path, ref)

    def sweep(self, *, older_than: float) -> int:
        """See :meth:`sampan.content.ContentStore.sweep`."""
        horizon = time.time() - older_than
        freed = 0
        directories = (*(self._blobs / name for name in _ALGORITHMS), self._ingest)
        for directory in directories:
            for path in directory.iterdir():
                stray = path.name.startswith(TEMPORARY_PREFIX)
                if not stray and directory != self._ingest:
                    continue
                if path.suffix == ".ref" and path.with_suffix("").exists():
                    continue  # goes with its ingest; alone after a crash in a commit
                try:
                    status = path.stat()
                    if status.st_mtime <= horizon and (self._drop(path, None)):
                        freed += status.st_size
                except FileNotFoundError:  # finished meanwhile
                    continue
        return freed

    def _drop(self, path: Path, ref: str | None) -> bool:
        """Remove an ingest nobody holds; held: Conflict when asked by ``ref``, else False."""
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if ref is None:
                return False
            raise Conflict(f"content {ref} is being transferred") from error
        else:
            path.unlink(missing_ok=True)
            path.with_name(f"{path.name}.ref").unlink(missing_ok=True)
            return True
        finally:
            os.close(fd)

    def _path(self, digest: Digest) -> Path:
        return self._blobs / digest.algorithm / digest.hex

    def _ref_path(self, ref: str) -> Path:
        return self._ingest / f"r-{hashlib.sha256(ref.encode()).hexdigest()[:40]}"


class _Writer:
    """See :class:`sampan.content.ContentWriter`."""

    def __init__(
        self,
        store: FileStore,
        *,
        expected: Digest | None,
        size: int | None,
        ref: str | None,
        algorithm: str,
    ) -> None:
        self._store = store
        self._expected = expected
        self._size = size
        self._algorithm = expected.algorithm if expected else algorithm
        self._ref = ref
        self._committed: Digest | None = None
        self._hash = hashlib.new(self._algorithm)
        self._lock = threading.Lock()
        ingest = store._ingest
        self._path = ingest / f"a-{secrets.token_hex(12)}" if ref is None else store._ref_path(ref)
        self._fd = self._open()
        self.offset = 0
        if expected is not None:
            store._live.started(expected, self._path, self)
        try:
            if ref is not None:
                atomic_write(
                    self._path.with_name(f"{self._path.name}.ref"), ref.encode(), durable=False
                )
                self._resume()
        except BaseException:
            self.close()
            raise

    def _open(self) -> int:
        """Open and lock the ingest; retried when a sweep removed it between the two."""
        for _ in range(100):
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(fd), os.stat(self._path)):
                    return fd
            except BlockingIOError as error:
                os.close(fd)
                raise Conflict(f"content {self._ref} is being transferred") from error
            except FileNotFoundError:
                pass
            os.close(fd)
        raise Conflict(f"content {self._ref} is being removed again and again")

    def _resume(self) -> None:
        """Hash what an earlier attempt left; start anew when it is more than announced."""
        held = os.fstat(self._fd).st_size
        if self._size is not None and held > self._size:
            self.truncate()
            return
        while chunk := os.pread(self._fd, _CHUNK, self.offset):
            self._hash.update(chunk)
            self._advance(len(chunk))
        os.lseek(self._fd, self.offset, os.SEEK_SET)

    def _advance(self, count: int) -> None:
        self.offset += count
        if self._expected is not None:
            self._store._live.grew(self._expected)

    @property
    def digest(self) -> Digest:
        return Digest(self._algorithm, self._hash.hexdigest())

    def write(self, data: Buffer, /) -> int:
        count = memoryview(data).nbytes
        if self._size is not None and self.offset + count > self._size:
            raise DigestMismatch(
                f"content {self._expected or self._ref or ''} is larger than the announced "
                f"{self._size} bytes"
            )
        view = memoryview(data).cast("B")
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as error:
            raise storage_error(error, "storing content") from error
        self._hash.update(data)
        self._advance(count)
        return count

    def truncate(self) -> None:
        os.ftruncate(self._fd, 0)
        os.lseek(self._fd, 0, os.SEEK_SET)
        self._hash = hashlib.new(self._algorithm)
        self.offset = 0
        if self._expected is not None:
            self._store._live.restarted(self._expected, self)

    def commit(self, expected: Digest | None = None) -> Digest:
        if self._committed is not None:
            return self._committed
        if self._fd < 0:
            raise SampanError("content writer was closed before commit")
        digest = self.digest
        for wanted in (self._expected, expected):
            if wanted is not None and wanted != digest:
                self.abort()
                raise DigestMismatch(f"content has digest {digest}, not {wanted}")
        if self._size is not None and self.offset != self._size:
            self.abort()
            raise DigestMismatch(
                f"content {digest} has {self.offset} bytes, not the announced {self._size}"
            )
        target = self._store._path(digest)
        try:
            os.fchmod(self._fd, 0o444)
            os.fsync(self._fd)
            os.rename(self._path, target)  # over an equal blob, if another writer was first
            fsync_directory(target.parent)
        except OSError as error:
            raise storage_error(error, f"storing {digest}") from error
        self._committed = digest
        self._end(remove=False)
        return digest

    def abort(self) -> None:
        self._end(remove=True)

    def close(self) -> None:
        self._end(remove=self._ref is None)

    def _end(self, *, remove: bool) -> None:
        with self._lock:
            fd, self._fd = self._fd, -1
        if fd < 0:
            return
        sidecar = self._path.with_name(f"{self._path.name}.ref")
        if self._committed is not None:
            sidecar.unlink(missing_ok=True)
        elif remove:
            self._path.unlink(missing_ok=True)
            sidecar.unlink(missing_ok=True)
        os.close(fd)
        if self._expected is not None:
            self._store._live.ended(self._expected, self)

    def __enter__(self) -> _Writer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None:
        self.close()


def _missing(digest: Digest) -> NotFound:
    return NotFound(f"content {digest} is not stored ({os.strerror(errno.ENOENT)})")
