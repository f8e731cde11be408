"""Tar archives made of files here, and files here made of tar archives.

Packing is a generator of bytes, so nothing is held in memory. Unpacking trusts the archive with
nothing: it may come from a hostile container. Every entry's path is walked component by component
below the destination; a symbolic link on the way, ``..``, or an absolute name is refused.
"""

from __future__ import annotations

import os
import stat
import tarfile
from typing import NamedTuple

from sampan.errors import InvalidParameter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_CHUNK = 256 * 1024
_BLOCK = 512
_END = b"\0" * (2 * _BLOCK)


class Packed(NamedTuple):
    """A file to be packed: where it is and what it is called in the archive."""

    path: str
    name: str


def walk(root: str, name: str, keep: Callable[[str, bool], bool] | None = None) -> Iterator[Packed]:
    """``root`` and everything below it, parents first, names sorted.

    ``keep(relative path, is directory)`` says what is packed; what is left out is still descended
    into, since something below may be kept.
    """
    if name:
        yield Packed(root, name)
    if not stat.S_ISDIR(os.lstat(root).st_mode):
        return
    yield from _walk(root, name, "", keep)


def _walk(
    root: str, name: str, inside: str, keep: Callable[[str, bool], bool] | None
) -> Iterator[Packed]:
    directory = os.path.join(root, inside) if inside else root
    with os.scandir(directory) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        relative = f"{inside}/{entry.name}" if inside else entry.name
        is_directory = entry.is_dir(follow_symlinks=False)
        if keep is None or keep(relative, is_directory):
            yield Packed(entry.path, f"{name}/{relative}" if name else relative)
        if is_directory:
            yield from _walk(root, name, relative, keep)


def pack(
    files: Iterable[Packed],
    *,
    change: Callable[[tarfile.TarInfo], None] | None = None,
) -> Iterator[bytes]:
    """A tar archive (PAX) of files. Sockets are left out: tar has no word for them.

    Raises ``OSError`` for a file that cannot be read, or InvalidParameter if it shrinks
    meanwhile.
    """
    linked: dict[tuple[int, int], str] = {}
    for file in files:
        status = os.lstat(file.path)
        header = _header(file, status, linked)
        if header is None:
            continue
        if change is not None:
            change(header)
        yield header.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
        if header.isreg() and header.size:
            yield from _content(file.path, header.size)
    yield _END


def _header(
    file: Packed, status: os.stat_result, linked: dict[tuple[int, int], str]
) -> tarfile.TarInfo | None:
    header = tarfile.TarInfo(file.name)
    header.mode = stat.S_IMODE(status.st_mode)
    header.uid, header.gid = status.st_uid, status.st_gid
    header.mtime = int(status.st_mtime)
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFREG:
        inode = (status.st_dev, status.st_ino)
        if status.st_nlink > 1 and inode in linked:
            header.type, header.linkname = tarfile.LNKTYPE, linked[inode]
        else:
            linked[inode] = file.name
            header.size = status.st_size
    elif kind == stat.S_IFDIR:
        header.type = tarfile.DIRTYPE
        header.name = file.name.rstrip("/") + "/"
    elif kind == stat.S_IFLNK:
        header.type, header.linkname = tarfile.SYMTYPE, os.readlink(file.path)
    elif kind == stat.S_IFIFO:
        header.type = tarfile.FIFOTYPE
    elif kind in (stat.S_IFCHR, stat.S_IFBLK):
        header.type = tarfile.CHRTYPE if kind == stat.S_IFCHR else tarfile.BLKTYPE
        header.devmajor, header.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
    else:
        return None
    return header


def _content(path: str, size: int) -> Iterator[bytes]:
    left = size
    with open(path, "rb") as file:
        while left:
            piece = file.read(min(left, _CHUNK))
            if not piece:
                raise InvalidParameter(f"{path} became shorter while it was read")
            left -= len(piece)
            yield piece
    padding = -size % _BLOCK
    if padding:
        yield b"\0" * padding


class PieceReader:
    """Pieces of bytes as a file that tarfile can read."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._buffer = b""
        self.total = 0

    def read(self, size: int) -> bytes:
        """Exactly ``size`` bytes, fewer only at the end."""
        parts = [self._buffer]
        length = len(self._buffer)
        while length < size:
            piece = next(self._pieces, b"")
            if not piece:
                break
            parts.append(piece)
            length += len(piece)
        data = b"".join(parts)
        self._buffer = data[size:]
        self.total += min(size, len(data))
        return data[:size]


class Unpacker:
    """Unpacks below one directory."""

    def __init__(self, root: str, rename: Callable[[str], str | None], *, ownership: bool) -> None:
        """``rename`` maps an entry's name to a path below ``root``; None leaves it out.

        ``ownership``: give files the archive's owners instead of the caller's.
        """
        self._root = root
        self._rename = rename
        self._ownership = ownership
        self._directories: list[tuple[str, tarfile.TarInfo]] = []

    def unpack(self, source: PieceReader) -> None:
        """Unpack an archive. Raises InvalidParameter for what it must not do, ``OSError``."""
        try:
            with tarfile.open(fileobj=source, mode="r|", errorlevel=2) as archive:  # type: ignore[call-overload]
                for entry in archive:
                    self._entry(archive, entry)
        except tarfile.TarError as error:
            raise InvalidParameter(f"invalid tar archive: {error}") from error
        for path, entry in reversed(self._directories):
            os.chmod(path, entry.mode & 0o7777)
            os.utime(path, (entry.mtime, entry.mtime))

    def _entry(self, archive: tarfile.TarFile, entry: tarfile.TarInfo) -> None:
        path = self._path(entry.name)
        if path is None:
            return
        if entry.isdir():
            if os.path.islink(path) or not os.path.isdir(path):
                _unlink(path)
                os.mkdir(path, 0o700)
            self._directories.append((path, entry))
        else:
            if os.path.isdir(path) and not os.path.islink(path):
                raise InvalidParameter(f"cannot overwrite directory {path} with a file")
            _unlink(path)
            self._create(archive, entry, path)
        if self._ownership:
            os.chown(path, entry.uid, entry.gid, follow_symlinks=False)
        if not entry.isdir() and not entry.issym() and not entry.islnk():
            os.chmod(path, entry.mode & 0o7777)
            os.utime(path, (entry.mtime, entry.mtime))

    def _create(self, archive: tarfile.TarFile, entry: tarfile.TarInfo, path: str) -> None:
        if entry.isreg():
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            source = archive.extractfile(entry)
            assert source is not None
            with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
                while piece := source.read(_CHUNK):
                    file.write(piece)
        elif entry.issym():
            os.symlink(entry.linkname, path)
        elif entry.islnk():
            target = self._path(entry.linkname)
            if target is None or os.path.islink(target):
                raise InvalidParameter(f"refusing hard link {entry.name} to {entry.linkname}")
            os.link(target, path, follow_symlinks=False)
        elif entry.isfifo():
            os.mkfifo(path, 0o600)
        elif entry.ischr() or entry.isblk():
            kind = stat.S_IFCHR if entry.ischr() else stat.S_IFBLK
            os.mknod(path, kind | 0o600, os.makedev(entry.devmajor, entry.devminor))

    def _path(self, name: str) -> str | None:
        """Where an entry goes, its parents made. Raises InvalidParameter for an escape."""
        renamed = self._rename(name)
        if renamed is None:
            return None
        parts = [part for part in renamed.split("/") if part not in ("", ".")]
        if ".." in parts or name.startswith("/"):
            raise InvalidParameter(f"refusing archive entry {name!r}: it leaves the destination")
        path = self._root
        for place, part in enumerate(parts):
            if place:
                self._parent(path, name)
            path = os.path.join(path, part)
        return path

    def _parent(self, path: str, name: str) -> None:
        try:
            mode = os.lstat(path).st_mode
        except FileNotFoundError:
            os.mkdir(path, 0o755)
            return
        if stat.S_ISLNK(mode):
            raise InvalidParameter(f"refusing archive entry {name!r}: {path} is a symbolic link")


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return  # nothing is in the way
