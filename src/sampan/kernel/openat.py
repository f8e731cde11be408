"""openat2(2) (Linux 5.6): opening paths of an untrusted root without leaving it.

Every path that comes from an image, or that a container can change while it is walked, is opened
through here; what is done afterwards is done to the descriptor.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
import struct
from collections.abc import Iterator

from sampan.kernel.libc import check, number, typed

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

PROC_SUPER_MAGIC = 0x9FA0
DEVPTS_SUPER_MAGIC = 0x1CD1
SYSFS_MAGIC = 0x62656572
TMPFS_MAGIC = 0x01021994
CGROUP_SUPER_MAGIC = 0x27E0EB
CGROUP2_SUPER_MAGIC = 0x63677270

_openat2 = typed(
    "syscall",
    ctypes.c_long,
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_size_t,
)
_OPENAT2 = number("openat2")
_fstatfs = typed("fstatfs", ctypes.c_int, ctypes.c_char_p, restype=ctypes.c_int)
_LINKS = 40  # path_resolution(7): symbolic links followed on the way to one file
_RETRIES = 64  # openat2(2): EAGAIN while something was renamed during a ".." walk


def openat2(directory: int, path: str | bytes, flags: int, resolve: int, mode: int = 0) -> int:
    """openat2(2), close-on-exec. Raises :class:`OSError` with ``path``."""
    name = os.fsencode(path)
    how = struct.pack("=QQQ", flags | os.O_CLOEXEC, mode, resolve)
    for _ in range(_RETRIES):
        result = _openat2(_OPENAT2, directory, name, how, len(how))
        if result >= 0 or ctypes.get_errno() != errno.EAGAIN:
            break
    return check(result, os.fsdecode(name))


def in_root(root: int, path: str | bytes, flags: int = os.O_PATH, mode: int = 0) -> int:
    """Open ``path`` as a process whose root directory is ``root`` would, without magic links."""
    return openat2(root, path, flags, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS, mode)


def beneath(root: int, path: str | bytes, flags: int = os.O_PATH) -> int:
    """Open ``path`` below ``root``; EXDEV where it, or a link on its way, leads out of there."""
    return openat2(root, path, flags, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS)


def filesystem_magic(fd: int) -> int:
    """The ``f_type`` of fstatfs(2), by which file systems are told apart."""
    buffer = ctypes.create_string_buffer(256)
    check(_fstatfs(fd, buffer), "fstatfs")
    return int(ctypes.c_long.from_buffer(buffer).value)


def is_device(fd: int, major: int, minor: int) -> bool:
    """Whether ``fd`` is the character device with these numbers."""
    status = os.fstat(fd)
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == os.makedev(major, minor)


def make_directories(root: int, path: str, mode: int = 0o755) -> int:
    """mkdir -p below ``root``; returns the directory as an O_PATH descriptor.

    Symbolic links are followed as inside the root, also those that lead to what is made only now.
    ``..`` components below what exists are an error.
    """
    for _ in range(_LINKS):
        parts = [part for part in path.split("/") if part and part != "."]
        fd, existing = _deepest(root, parts)
        for at in range(existing, len(parts)):
            if parts[at] == "..":
                os.close(fd)
                raise OSError(errno.EINVAL, "parent of a missing directory", path)
            try:
                child = _make_directory(fd, parts[at], mode)
                if child < 0:
                    target = os.readlink(parts[at], dir_fd=fd)
                    path = _leads_to(parts[:at], target, parts[at + 1 :])
                    break
            finally:
                os.close(fd)
            fd = child
        else:
            return fd
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)


def _deepest(root: int, parts: list[str]) -> tuple[int, int]:
    """The deepest directory on the way that exists, and the number of parts that lead to it."""
    existing = len(parts)
    while True:
        try:
            flags = os.O_PATH | os.O_DIRECTORY
            return in_root(root, "/".join(parts[:existing]) or ".", flags), existing
        except FileNotFoundError:
            if not existing:
                raise
            existing -= 1


def _leads_to(before: list[str], target: str, after: list[str]) -> str:
    """The path that a link stands for, which was found at ``before`` and has ``after`` below it."""
    start = [] if target.startswith("/") else before
    return "/".join([*start, target, *after])


def _make_directory(parent: int, name: str, mode: int) -> int:
    """-1: a symbolic link is there, which dangles."""
    # It may exist by now: somebody else was faster, or a dangling link. The open below tells.
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, mode, dir_fd=parent)
    flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW
    try:
        return openat2(parent, name, flags, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR) or not _is_link(parent, name):
            raise
        return -1


def _is_link(directory: int, name: str) -> bool:
    return stat.S_ISLNK(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)


def make_file(root: int, path: str, mode: int = 0o644) -> int:
    """An O_PATH descriptor of the file at ``path``, made empty (with parents) if missing.

    Symbolic links are followed as by :func:`make_directories`.
    """
    for _ in range(_LINKS):
        try:
            return in_root(root, path)
        except FileNotFoundError:
            pass
        directory, _, name = path.rstrip("/").rpartition("/")
        with _opened(make_directories(root, directory)) as parent:
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
            with contextlib.suppress(FileExistsError):  # as in _make_directory
                os.close(os.open(name, flags, mode, dir_fd=parent))
            try:
                return openat2(parent, name, os.O_PATH, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)
            except OSError as error:
                if error.errno != errno.ELOOP or not _is_link(parent, name):
                    raise
            path = _leads_to([directory], os.readlink(name, dir_fd=parent), [])
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)


@contextlib.contextmanager
def _opened(fd: int) -> Iterator[int]:
    try:
        yield fd
    finally:
        os.close(fd)
