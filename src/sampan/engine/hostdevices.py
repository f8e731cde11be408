"""Device nodes of the host, looked up for planners (mknod(2), stat(2))."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from sampan.errors import InvalidParameter


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceNode:
    """A character (``c``) or block (``b``) device with its permissions."""

    path: str
    kind: str
    major: int
    minor: int
    mode: int
    uid: int
    gid: int


class DeviceTable(Protocol):
    """What planners ask of a host's devices; tests pass a table of their own."""

    def node(self, path: str) -> DeviceNode:
        """The device at ``path``; InvalidParameter when it is none."""
        ...

    def nodes(self, path: str) -> list[DeviceNode]:
        """The device at ``path``, or all below it when it is a directory."""
        ...

    def all(self) -> list[DeviceNode]:
        """Every device of the host a privileged container gets."""
        ...


class HostDevices:
    """The devices of the running host."""

    def node(self, path: str) -> DeviceNode:
        """See :class:`DeviceTable`."""
        found = _stat(path)
        if found is None:
            raise InvalidParameter(
                f'error gathering device information while adding custom device "{path}": '
                "not a device node"
            )
        return found

    def nodes(self, path: str) -> list[DeviceNode]:
        """See :class:`DeviceTable`."""
        if os.path.isdir(path) and (below := list(_walk(path))):
            return below
        return [self.node(path)]

    def all(self) -> list[DeviceNode]:
        """See :class:`DeviceTable`; container-local ones (console, ptmx, ...) are left out."""
        return list(_walk("/dev"))


def _stat(path: str) -> DeviceNode | None:
    try:
        status = os.stat(path)
    except FileNotFoundError as error:
        raise InvalidParameter(
            f'error gathering device information while adding custom device "{path}": '
            "no such file or directory"
        ) from error
    except OSError as error:
        raise InvalidParameter(f'cannot examine device "{path}": {error.strerror}') from error
    return _node(path, status)


def _node(path: str, status: os.stat_result) -> DeviceNode | None:
    if stat.S_ISCHR(status.st_mode):
        kind = "c"
    elif stat.S_ISBLK(status.st_mode):
        kind = "b"
    else:
        return None
    return DeviceNode(
        path=path,
        kind=kind,
        major=os.major(status.st_rdev),
        minor=os.minor(status.st_rdev),
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
    )


_LOCAL = frozenset({"pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev"})


def _walk(directory: str) -> Iterator[DeviceNode]:
    with os.scandir(directory) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.is_symlink() or entry.name in _LOCAL or entry.name in ("console", "ptmx"):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(entry.path)
            else:
                node = _node(entry.path, entry.stat(follow_symlinks=False))
                if node is not None:
                    yield node
