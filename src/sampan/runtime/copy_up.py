"""Copying a directory tree by descriptors (``tmpcopyup``): no path is looked up twice."""

from __future__ import annotations

import contextlib
import errno
import os
import stat

_CHUNK = 1 << 20


def copy_tree(source: int, target: int) -> None:
    """Copy what is in directory ``source`` into directory ``target``, ownership and modes kept.

    Sockets and hard link relations are not copied; other file systems mounted below ``source`` are
    not entered. Raises :class:`OSError`.
    """
    _attributes(os.fstat(source), source, target)
    _copy_entries(source, target, os.fstat(source).st_dev)


def _copy_entries(source: int, target: int, device: int) -> None:
    for name in os.listdir(source):
        status = os.stat(name, dir_fd=source, follow_symlinks=False)
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFDIR:
            os.mkdir(name, 0o700, dir_fd=target)
            inner = _open(name, os.O_RDONLY | os.O_DIRECTORY, source)
            copy = _open(name, os.O_RDONLY | os.O_DIRECTORY, target)
            try:
                if os.fstat(inner).st_dev == device:
                    _copy_entries(inner, copy, device)
                _attributes(status, inner, copy)
            finally:
                os.close(inner)
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
            while data := os.read(inner, _CHUNK):
                while data:
                    data = data[os.write(copy, data) :]
            _attributes(status, inner, copy)
        finally:
            os.close(copy)
    finally:
        os.close(inner)


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
