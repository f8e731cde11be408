"""Operations that make device nodes and links in a root that belongs to the image."""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import stat
from collections.abc import Sequence

from sampan.kernel import mount as m
from sampan.kernel import openat
from sampan.runtime.context import Context

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.model import oci

_DEVICE_TYPES = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}
_LINKS = (
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/core", "/proc/kcore"),
)


def devices(context: Context, *, slot: str | None, nodes: Sequence[oci.Device]) -> None:
    """Make device nodes, in the root or in a fresh mount. One that exists must be the same."""
    root = context.root if slot is None else context.take(slot)
    directories: dict[str, int] = {}
    mask = os.umask(0)  # the runtime's side has one
    try:
        for node in nodes:
            directory, name = posixpath.split(posixpath.normpath(node["path"]))
            if directory not in directories:
                directories[directory] = openat.make_directories(root, directory)
            _make_device(directories[directory], name, node)
    finally:
        os.umask(mask)
        for fd in directories.values():
            os.close(fd)


def _make_device(parent: int, name: str, node: oci.Device) -> None:
    kind = node["type"]
    number = 0 if kind == "p" else os.makedev(node["major"], node["minor"])
    file_type = _DEVICE_TYPES[kind]
    mode = node.get("fileMode", 0o666) & 0o7777
    try:
        os.mknod(name, file_type | mode, number, dir_fd=parent)
    except FileExistsError:
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if stat.S_IFMT(status.st_mode) != file_type or status.st_rdev != number:
            reason = "another file is there"
            raise FileExistsError(errno.EEXIST, reason, node["path"]) from None
        return
    except OSError as error:
        raise OSError(error.errno, error.strerror, node["path"]) from error
    uid, gid = node.get("uid", 0), node.get("gid", 0)
    if uid or gid:
        os.chown(name, uid, gid, dir_fd=parent, follow_symlinks=False)


def device_links(context: Context, *, ptmx: bool) -> None:
    """/dev/fd, /dev/stdin, ... and /dev/ptmx. What the image has of them stays, but ptmx."""
    for path, target in _LINKS:
        _link(context.root, path, target)
    if ptmx:
        with m.descriptor(openat.make_directories(context.root, "/dev")) as parent:
            with contextlib.suppress(FileNotFoundError):
                os.unlink("ptmx", dir_fd=parent)
            os.symlink("pts/ptmx", "ptmx", dir_fd=parent)


def symlinks(context: Context, *, links: Sequence[tuple[str, str]]) -> None:
    """Make symbolic links (path, target); existing ones stay."""
    for path, target in links:
        _link(context.root, path, target)


def _link(root: int, path: str, target: str) -> None:
    directory, name = posixpath.split(path)
    parent = openat.make_directories(root, directory)
    with m.descriptor(parent), contextlib.suppress(FileExistsError):
        os.symlink(target, name, dir_fd=parent)
