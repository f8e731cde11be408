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

    Existing symbolic links are followed as inside the root; one that dangles is an error, as are
    ``..`` components below what exists.
    """
    parts = [part for part in path.split("/") if part and part != "."]
    existing = len(parts)
    while True:
        try:
            fd = in_root(root, "/".join(parts[:existing]) or ".", os.O_PATH | os.O_DIRECTORY)
            break
        except FileNotFoundError:
            if not existing:
                raise
            existing -= 1
    for part in parts[existing:]:
        if part == "..":
            os.close(fd)
            raise OSError(errno.EINVAL, "parent of a missing directory", path)
        try:
            child = _make_directory(fd, part, mode)
        finally:
            os.close(fd)
        fd = child
    return fd


def _make_directory(parent: int, name: str, mode: int) -> int:
    # It may exist by now: somebody else was faster, or a dangling link. The open below tells.
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, mode, dir_fd=parent)
    flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW
    return openat2(parent, name, flags, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)


def make_file(root: int, path: str, mode: int = 0o644) -> int:
    """An O_PATH descriptor of the file at ``path``, made empty (with parents) if missing."""
    try:
        return in_root(root, path)
    except FileNotFoundError:
        pass
    directory, _, name = path.rstrip("/").rpartition("/")
    parent = make_directories(root, directory)
    try:
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        with contextlib.suppress(FileExistsError):  # as in _make_directory
            os.close(os.open(name, flags, mode, dir_fd=parent))
        return openat2(parent, name, os.O_PATH, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)
    finally:
        os.close(parent)
