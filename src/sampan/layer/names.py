"""Names of archive members: the one policy for what is inside the destination.

A name is bytes. Leading ``/`` and ``./`` mean the destination's root, as every engine reads them;
a ``..`` component is refused wherever it stands. Symbolic links on the way are followed as inside
the root (an absolute target starts at the root), unless they climb above it: refused.
"""

from __future__ import annotations

import errno
import os

from sampan.errors import ArchiveRefused
from sampan.kernel.openat import (
    RESOLVE_BENEATH,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS,
    openat2,
)

WHITEOUT = b".wh."
OPAQUE = b".wh..wh..opq"
#: Other names aufs used for itself; they never were part of an image.
WHITEOUT_META = b".wh..wh."

_LINKS = 40  # as the kernel: path_resolution(7)


def show(name: bytes) -> str:
    """A name for an error message."""
    return repr(name[:200].decode("utf-8", "backslashreplace"))


def split(name: bytes) -> tuple[bytes, bytes]:
    """(directory, base name) of a member's name, normalised; base is empty for the root.

    Raises ArchiveRefused when it has a ``..`` component.
    """
    if name[:2] == b"./":
        name = name[2:]
    if name[-1:] == b"/":
        name = name[:-1]
    if b"//" not in name and b"./" not in name and name[:1] != b"/" and name[-1:] not in b"/.":
        directory, _, base = name.rpartition(b"/")  # the common case, normal now
        return directory, base
    parts = [part for part in name.split(b"/") if part and part != b"."]
    if b".." in parts:
        raise ArchiveRefused(f"the archive's name {show(name)} has a '..' component")
    if not parts:
        return b"", b""
    return b"/".join(parts[:-1]), parts[-1]


def link_target(name: bytes, link: bytes) -> tuple[bytes, bytes]:
    """(directory, base name) of a hard link's target; refuses absolute ones and ``..``."""
    if link.startswith(b"/"):
        raise ArchiveRefused(
            f"the archive's hard link {show(name)} has the absolute target {show(link)}"
        )
    directory, base = split(link)
    if not base:
        raise ArchiveRefused(f"the archive's hard link {show(name)} has no target")
    return directory, base


def open_parent(root: int, path: bytes, *, strict: bool = True) -> int:
    """An O_PATH descriptor of directory ``path`` as seen inside ``root``.

    Unless ``strict``, links that climb above the root end at it, as in a chroot.

    Raises FileNotFoundError when it does not exist, NotADirectoryError when something on the way
    is no directory, ArchiveRefused when symbolic links lead out of the root.
    """
    flags = os.O_PATH | os.O_DIRECTORY
    try:
        return openat2(root, path, flags, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _leads_out(path) from error
        if error.errno != errno.EXDEV:
            raise
    # An absolute link (inside the root for a container), or one that climbs out of it.
    if strict and _climbs_out(root, path):
        raise _leads_out(path)
    try:
        return openat2(root, path, flags, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOENT, errno.EXDEV):
            raise _leads_out(path) from error
        raise


def _leads_out(path: bytes) -> ArchiveRefused:
    return ArchiveRefused(
        f"the archive's directory {show(path)} goes through a symbolic link that leads out of it"
    )


def _climbs_out(root: int, path: bytes) -> bool:
    """Whether resolving ``path`` meets a ``..`` at the root; only links can bring one.

    Advisory: the open that follows is confined by the kernel whatever this says.
    """
    pending = path.split(b"/")[::-1]
    done: list[bytes] = []
    links = 0
    while pending:
        part = pending.pop()
        if part in (b"", b"."):
            continue
        if part == b"..":
            if not done:
                return True
            done.pop()
            continue
        try:
            fd = openat2(
                root,
                b"/".join([*done, part]),
                os.O_PATH | os.O_NOFOLLOW,
                RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS,
            )
        except OSError:
            return False  # does not resolve: the open that follows reports it
        try:
            target = os.readlink(b"", dir_fd=fd)
        except OSError:  # no symbolic link
            done.append(part)
            continue
        finally:
            os.close(fd)
        links += 1
        if links > _LINKS:
            return True
        if target.startswith(b"/"):
            done.clear()
        pending.extend(target.split(b"/")[::-1])
    return False
