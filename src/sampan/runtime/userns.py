"""User namespaces that exist to carry an id mapping."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

from sampan.kernel import namespaces


def write_maps(
    pid: int, uid_map: Sequence[Sequence[int]], gid_map: Sequence[Sequence[int]]
) -> None:
    """Write /proc/<pid>/uid_map and gid_map (user_namespaces(7)): once, in one write each."""
    for name, rows in (("uid_map", uid_map), ("gid_map", gid_map)):
        path = f"/proc/{pid}/{name}"
        text = "".join(f"{inside} {outside} {count}\n" for inside, outside, count in rows)
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        except OSError as error:
            raise OSError(error.errno, error.strerror, path) from error
        finally:
            os.close(fd)


def mapped_namespace(uid_map: Sequence[Sequence[int]], gid_map: Sequence[Sequence[int]]) -> int:
    """A descriptor of a new user namespace with these mappings, for MOUNT_ATTR_IDMAP.

    A short-lived child makes it; the caller must be single-threaded. Raises :class:`OSError`.
    """
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            namespaces.unshare(namespaces.CLONE_NEWUSER)
            os.write(told, b"1")
            signal.pause()
        finally:
            os._exit(1)
    os.close(told)
    try:
        if not os.read(ready, 1):
            raise OSError("no user namespace could be made for an idmapped mount")
        write_maps(child, uid_map, gid_map)
        return os.open(f"/proc/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(ready)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
