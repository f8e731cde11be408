"""Mounts: the descriptor-based calls (fsopen(2) and after, Linux 5.2 and 5.12) and mount(2).

A *detached* mount is one that no path leads to, held by a descriptor alone; it disappears with
the last descriptor, so nothing half-made is left behind.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import struct
from collections.abc import Iterator, Sequence

from sampan.kernel.libc import check, number, typed

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 0x1, 0x2, 0x4, 0x8
MS_REMOUNT, MS_BIND, MS_MOVE, MS_REC = 0x20, 0x1000, 0x2000, 0x4000
MS_UNBINDABLE, MS_PRIVATE, MS_SLAVE, MS_SHARED = 0x20000, 0x40000, 0x80000, 0x100000

MNT_DETACH = 0x2

MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR__ATIME = 0x70
MOUNT_ATTR_RELATIME = 0x0
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_IDMAP = 0x100000
MOUNT_ATTR_NOSYMFOLLOW = 0x200000

FSOPEN_CLOEXEC = 0x1
FSMOUNT_CLOEXEC = 0x1
OPEN_TREE_CLONE = 0x1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 0x4
MOVE_MOUNT_T_EMPTY_PATH = 0x40
AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_NO_AUTOMOUNT = 0x800
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000

FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_SET_FD = 5
FSCONFIG_CMD_CREATE = 6

_long, _int, _uint = ctypes.c_long, ctypes.c_int, ctypes.c_uint
_path, _pointer, _size = ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t

_fsopen = typed("syscall", _long, _path, _uint)
_fsconfig = typed("syscall", _long, _int, _uint, _path, _path, _int)
_fsmount = typed("syscall", _long, _int, _uint, _uint)
_open_tree = typed("syscall", _long, _int, _path, _uint)
_move_mount = typed("syscall", _long, _int, _path, _int, _path, _uint)
_mount_setattr = typed("syscall", _long, _int, _path, _uint, _pointer, _size)
_pivot_root = typed("syscall", _long, _path, _path)
_mount = typed("mount", _path, _path, _path, ctypes.c_ulong, _path, restype=_int)
_umount2 = typed("umount2", _path, _int, restype=_int)

_FSOPEN, _FSCONFIG, _FSMOUNT = number("fsopen"), number("fsconfig"), number("fsmount")
_OPEN_TREE, _MOVE_MOUNT = number("open_tree"), number("move_mount")
_MOUNT_SETATTR, _PIVOT_ROOT = number("mount_setattr"), number("pivot_root")


def mount(source: str, target: str, fstype: str, flags: int, data: str = "") -> None:
    """mount(2)."""
    result = _mount(
        os.fsencode(source),
        os.fsencode(target),
        os.fsencode(fstype) if fstype else None,
        flags,
        os.fsencode(data) if data else None,
    )
    check(result, target)


def umount2(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    check(_umount2(os.fsencode(target), flags), target)


def mount_id(path: str) -> int:
    """The id of the mount that ``path`` is on (proc_pid_mountinfo(5)), the topmost there."""
    with descriptor(os.open(path, os.O_PATH | os.O_CLOEXEC)) as fd:
        return mount_id_of(fd)


def mount_id_of(fd: int) -> int:
    """The id of the mount that an open file is on."""
    with open(f"/proc/self/fdinfo/{fd}") as file:
        fields = dict(line.split(":", 1) for line in file)
    return int(fields["mnt_id"])


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2)."""
    check(_pivot_root(_PIVOT_ROOT, os.fsencode(new_root), os.fsencode(put_old)), new_root)


def fsopen(fstype: str) -> int:
    """fsopen(2): a descriptor of a new file system configuration, close-on-exec."""
    return check(_fsopen(_FSOPEN, os.fsencode(fstype), FSOPEN_CLOEXEC), fstype)


def fsconfig(
    fs: int, command: int, key: str | None = None, value: str | None = None, aux: int = 0
) -> None:
    """fsconfig(2). The error is about ``key``, with what the kernel logged if it did."""
    result = _fsconfig(
        _FSCONFIG,
        fs,
        command,
        None if key is None else os.fsencode(key),
        None if value is None else os.fsencode(value),
        aux,
    )
    if result < 0:
        code = ctypes.get_errno()
        log = _messages(fs)
        raise OSError(code, f"{os.strerror(code)} ({log})" if log else os.strerror(code), key)


def _messages(fs: int) -> str:
    """What the kernel says about a failed fsconfig, read from its descriptor (fsopen(2))."""
    lines = []
    with contextlib.suppress(OSError):  # ENODATA ends the list
        while True:
            lines.append(os.read(fs, 4096).decode("utf-8", "replace").strip())
    return "; ".join(line.partition(" ")[2] or line for line in lines)


def fsmount(fs: int, attributes: int = 0) -> int:
    """fsmount(2): the detached mount of a created file system, close-on-exec."""
    return check(_fsmount(_FSMOUNT, fs, FSMOUNT_CLOEXEC, attributes), "fsmount")


def new_filesystem(
    fstype: str,
    source: str,
    options: Sequence[tuple[str, str | int | None]] = (),
    attributes: int = 0,
) -> int:
    """A detached mount of a new file system instance.

    ``options``: (key, value); a value of None sets a flag, an int passes a descriptor.
    Raises :class:`OSError` naming the option refused.
    """
    fs = fsopen(fstype)
    try:
        if source:
            fsconfig(fs, FSCONFIG_SET_STRING, "source", source)
        for key, value in options:
            if value is None:
                fsconfig(fs, FSCONFIG_SET_FLAG, key)
            elif isinstance(value, int):
                fsconfig(fs, FSCONFIG_SET_FD, key, None, value)
            else:
                fsconfig(fs, FSCONFIG_SET_STRING, key, value)
        fsconfig(fs, FSCONFIG_CMD_CREATE)
        return fsmount(fs, attributes)
    finally:
        os.close(fs)


def open_tree(directory: int, path: str, flags: int) -> int:
    """open_tree(2), close-on-exec; with OPEN_TREE_CLONE a detached bind mount."""
    result = _open_tree(_OPEN_TREE, directory, os.fsencode(path), flags | OPEN_TREE_CLOEXEC)
    return check(result, path)


def clone_tree(directory: int, path: str, *, recursive: bool) -> int:
    """A detached bind mount of ``path`` (the empty path: of the descriptor itself)."""
    flags = OPEN_TREE_CLONE | AT_NO_AUTOMOUNT
    if not path:
        flags |= AT_EMPTY_PATH
    if recursive:
        flags |= AT_RECURSIVE
    return open_tree(directory, path, flags)


def move_mount(from_fd: int, to_fd: int, to_path: str = "") -> None:
    """move_mount(2): attach the mount at ``from_fd`` to a path, or to ``to_fd`` itself."""
    flags = MOVE_MOUNT_F_EMPTY_PATH | (0 if to_path else MOVE_MOUNT_T_EMPTY_PATH)
    check(_move_mount(_MOVE_MOUNT, from_fd, b"", to_fd, os.fsencode(to_path), flags), to_path)


def mount_setattr(
    directory: int,
    path: str,
    *,
    set_: int = 0,
    clear: int = 0,
    propagation: int = 0,
    userns: int = 0,
    recursive: bool = False,
) -> None:
    """mount_setattr(2); ``userns`` is a user namespace descriptor for MOUNT_ATTR_IDMAP."""
    flags = (AT_RECURSIVE if recursive else 0) | (0 if path else AT_EMPTY_PATH)
    attributes = struct.pack("=QQQQ", set_, clear, propagation, userns)
    result = _mount_setattr(
        _MOUNT_SETATTR, directory, os.fsencode(path), flags, attributes, len(attributes)
    )
    check(result, path or "mount_setattr")


def supports_mount_setattr() -> bool:
    """Whether the kernel has mount_setattr(2) (Linux 5.12)."""
    result = _mount_setattr(_MOUNT_SETATTR, -1, b"", AT_EMPTY_PATH, bytes(32), 32)
    return not (result < 0 and ctypes.get_errno() == errno.ENOSYS)


@contextlib.contextmanager
def descriptor(fd: int) -> Iterator[int]:
    """``fd``, closed at the end."""
    try:
        yield fd
    finally:
        os.close(fd)
