"""Copying a directory tree by descriptors (``tmpcopyup``): no path is looked up twice."""

from __future__ import annotations

import contextlib
import errno
import os
import stat

_CHUNK = 1 << 20
_RANGE = 1 << 30
_NO_RANGE = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM)


def copy_tree(source: int, target: int) -> None:
    """Copy what is in directory ``source`` into directory ``target``, ownership, modes and hard
    links kept.

    Nobody else may change ``target`` meanwhile. Sockets are not copied; other file systems
    mounted below ``source`` are not entered. Raises :class:`OSError`.
    """
    status = os.fstat(source)
    _Copy(target, status.st_dev).entries(source, target, "")
    # Last, or what is made in it would change its times.
    _attributes(status, source, target)


class _Copy:
    """One copying: where it goes, and the first name of each file that has several."""

    def __init__(self, root: int, device: int) -> None:
        self._root = root
        self._device = device
        self._names: dict[tuple[int, int], str] = {}

    def entries(self, source: int, target: int, place: str) -> None:
        """Copy a directory's entries; ``place`` is its path below the root, with a slash.

        What goes away while being copied is left out.
        """
        for name in os.listdir(source):
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(name, dir_fd=source, follow_symlinks=False)
                several = status.st_nlink > 1 and stat.S_ISREG(status.st_mode)
                key = (status.st_dev, status.st_ino)
                if several and (first := self._names.get(key)) is not None:
                    os.link(first, name, src_dir_fd=self._root, dst_dir_fd=target)
                    continue
                self._entry(name, source, target, status, place)
                if several:
                    self._names[key] = place + name

    def _entry(
        self, name: str, source: int, target: int, status: os.stat_result, place: str
    ) -> None:
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFDIR:
            inner = _open(name, os.O_RDONLY | os.O_DIRECTORY, source)
            copy = -1
            try:
                os.mkdir(name, 0o700, dir_fd=target)
                copy = _open(name, os.O_RDONLY | os.O_DIRECTORY, target)
                if os.fstat(inner).st_dev == self._device:
                    self.entries(inner, copy, f"{place}{name}/")
                _attributes(status, inner, copy)
            finally:
                os.close(inner)
                if copy >= 0:
                    os.close(copy)
        elif kind == stat.S_IFREG:
            _copy_file(name, source, target, status)
        elif kind == stat.S_IFLNK:
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
            os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
        elif kind in (stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO):
            os.mknod(name, status.st_mode, status.st_rdev, dir_fd=target)
            os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)


def _open(name: str, flags: int, directory: int, mode: int = 0o600) -> int:
    return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=directory)


def _copy_file(name: str, source: int, target: int, status: os.stat_result) -> None:
    inner = _open(name, os.O_RDONLY | os.O_NONBLOCK, source)
    try:
        copy = _open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, target)
        try:
            _copy_data(inner, copy)
            _attributes(status, inner, copy)
        finally:
            os.close(copy)
    finally:
        os.close(inner)


def _copy_data(source: int, target: int) -> None:
    """Copy a file's data, in the kernel (which may share blocks) where it can."""
    try:
        while os.copy_file_range(source, target, _RANGE):
            pass
    except OSError as error:
        # Some file systems cannot; what was copied so far both offsets have passed.
        if error.errno not in _NO_RANGE:
            raise
    # Files of pseudo file systems look empty to copy_file_range(2); others have nothing left.
    while data := os.read(source, _CHUNK):
        while data:
            data = data[os.write(target, data) :]


def _attributes(status: os.stat_result, source: int, target: int) -> None:
    os.fchown(target, status.st_uid, status.st_gid)
    os.fchmod(target, stat.S_IMODE(status.st_mode))
    with contextlib.suppress(OSError):  # a file system without extended attributes has none
        for name in os.listxattr(source):
            try:
                os.setxattr(target, name, os.getxattr(source, name))
            except OSError as error:
                if error.errno not in (errno.ENOTSUP, errno.EPERM):
                    raise
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
