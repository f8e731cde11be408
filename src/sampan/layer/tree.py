"""Walk directory trees by descriptor, however deep, without following a symbolic link."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple

from sampan.kernel.openat import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2

DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: Directories kept open while walking below them; deeper ones are opened again on return.
_OPEN = 64
#: Attributes that stay on the host: overlay's own marks, and labels of the host's policy.
HOST_XATTRS = (b"trusted.", b"user.overlay.", b"security.selinux", b"security.ima")
_FIXED_RESOLVE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS


class Node(NamedTuple):
    """One entry of a tree: ``path`` relative to the root, ``parent`` the open descriptor of its
    directory, valid until the next step, ``name`` its name in there."""

    path: bytes
    parent: int
    name: bytes
    status: os.stat_result


_Names = list[tuple[bytes, os.stat_result]]
First = Callable[[os.stat_result], bool]


class _Frame:
    __slots__ = ("fd", "names", "path")

    def __init__(self, fd: int, path: bytes, names: _Names) -> None:
        self.fd = fd
        self.path = path
        self.names = names


def open_directory(root: int, path: bytes) -> int:
    """Open directory ``path`` below ``root`` for reading; no symbolic link is followed.

    Raises OSError: ENOTDIR or ELOOP when a component is something else.
    """
    return openat2(root, path or b".", DIRECTORY_FLAGS, _FIXED_RESOLVE)


def names(fd: int) -> list[bytes]:
    """The names in directory ``fd``, sorted."""
    return sorted(map(os.fsencode, os.listdir(fd)))


def walk(root: int, *, first: First | None = None) -> Iterator[Node]:
    """Everything below directory ``root``, each directory before its contents.

    Names are sorted; those whose status ``first`` likes come before their siblings. Entries that
    vanish meanwhile are left out; a directory replaced by something else is not entered. At most
    64 descriptors are open at a time.
    """
    top = os.open(".", DIRECTORY_FLAGS, dir_fd=root)
    stack = [_Frame(top, b"", [])]
    try:
        stack[0].names = _list(top, first)
        while stack:
            frame = stack[-1]
            if not frame.names:
                stack.pop()
                _close(frame)
                continue
            if frame.fd < 0 and not _reopen(root, frame):
                frame.names.clear()
                continue
            name, status = frame.names.pop()
            path = frame.path + name
            yield Node(path, frame.fd, name, status)
            if stat.S_ISDIR(status.st_mode):
                _enter(stack, frame.fd, name, path, first)
    finally:
        for frame in stack:
            _close(frame)


def _list(fd: int, first: First | None) -> _Names:
    """What is in a directory, in reverse order, to be popped from the end."""
    found: _Names = []
    for name in names(fd):
        with suppress(FileNotFoundError):
            found.append((name, os.lstat(name, dir_fd=fd)))
    if first is not None:
        found.sort(key=lambda item: (not first(item[1]), item[0]))
    found.reverse()
    return found


def _enter(stack: list[_Frame], parent: int, name: bytes, path: bytes, first: First | None) -> None:
    try:
        fd = os.open(name, DIRECTORY_FLAGS, dir_fd=parent)
    except (FileNotFoundError, NotADirectoryError):
        return
    if len(stack) >= _OPEN:
        _close(stack[-_OPEN])
    frame = _Frame(fd, path + b"/", [])
    stack.append(frame)
    frame.names = _list(fd, first)


def _reopen(root: int, frame: _Frame) -> bool:
    try:
        frame.fd = open_directory(root, frame.path.rstrip(b"/"))
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise
        return False  # gone, or no directory any more: nothing of it is left to walk
    return True


def _close(frame: _Frame) -> None:
    if frame.fd >= 0:
        os.close(frame.fd)
        frame.fd = -1


def xattrs(parent: int, name: bytes) -> dict[bytes, bytes]:
    """All extended attributes of ``name`` in directory ``parent``, the link's own for a link."""
    path = b"/proc/self/fd/%d/%b" % (parent, name)
    found: dict[bytes, bytes] = {}
    try:
        keys = os.listxattr(path, follow_symlinks=False)
        for key in sorted(keys):
            found[os.fsencode(key)] = os.getxattr(path, key, follow_symlinks=False)
    except OSError as error:  # not supported here; or the file or attribute vanished meanwhile
        if error.errno not in (errno.ENOTSUP, errno.ENODATA, errno.ENOENT):
            raise
    return found


def portable_xattrs(parent: int, name: bytes) -> dict[bytes, bytes]:
    """The extended attributes of a file that belong into a layer."""
    found = xattrs(parent, name)
    return {key: found[key] for key in found if not key.startswith(HOST_XATTRS)}
