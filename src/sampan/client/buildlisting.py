"""What a build context holds, as the daemon compares it with what it kept from the last build.

One entry is three NUL-ended fields: a stamp, the path, the target of a symbolic link. The stamp
(octal mode, size, times in nanoseconds, inode) changes whenever the file may have changed.
"""

from __future__ import annotations

import os
import stat

from sampan.client.tarstream import Packed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Keep = Callable[[str], bool]

_WILD = frozenset("*?[")


class Listing:
    """The files of a directory that the daemon may see, in a fixed order."""

    def __init__(self, root: str, keep: Keep | None, paths: list[str] | None) -> None:
        """``keep`` says what is not ignored; ``paths`` are the only ones wanted (None: all)."""
        self._root = root
        self._keep = keep
        self.names: list[str] = []
        self._fields: list[bytes] = []
        starts = _starts(root, paths)
        if starts is None:
            self._walk("")
        else:
            for start in starts:
                self._from(start)

    def encode(self) -> bytes:
        """The listing as it is sent."""
        return b"".join(self._fields)

    def packed(self, wanted: list[int]) -> Iterator[Packed]:
        """The entries with these numbers, to be packed."""
        for number in wanted:
            name = self.names[number]
            yield Packed(os.path.join(self._root, name), name)

    def _from(self, start: str) -> None:
        """A wanted path with the directories above it."""
        parts = start.split("/")
        known = set(self.names)
        for count in range(1, len(parts) + 1):
            name = "/".join(parts[:count])
            path = os.path.join(self._root, name)
            try:
                status = os.lstat(path)
            except (FileNotFoundError, NotADirectoryError):
                return
            if name not in known and (count < len(parts) or self._kept(name)):
                self._add(name, path, status)
        if stat.S_ISDIR(status.st_mode):
            self._walk(start)

    def _kept(self, name: str) -> bool:
        return self._keep is None or self._keep(name)

    def _walk(self, inside: str) -> None:
        with os.scandir(os.path.join(self._root, inside) if inside else self._root) as found:
            entries = sorted(found, key=lambda entry: entry.name)
        for entry in entries:
            name = f"{inside}/{entry.name}" if inside else entry.name
            if self._kept(name):
                self._add(name, entry.path, entry.stat(follow_symlinks=False))
            if entry.is_dir(follow_symlinks=False):
                self._walk(name)

    def _add(self, name: str, path: str, status: os.stat_result) -> None:
        mode = status.st_mode
        if stat.S_ISSOCK(mode):
            return
        link = os.fsencode(os.readlink(path)) if stat.S_ISLNK(mode) else b""
        stamp = b"%o %d %d" % (mode, status.st_size, status.st_mtime_ns)
        if not stat.S_ISDIR(mode):
            stamp += b" %d %d" % (status.st_ctime_ns, status.st_ino)
        self.names.append(name)
        self._fields.append(b"%b\0%b\0%b\0" % (stamp, os.fsencode(name), link))


def _starts(root: str, paths: list[str] | None) -> list[str] | None:
    """The paths to begin at, none below another; None for everything.

    A wildcard stands for all of its directory; a link on the way may lead anywhere.
    """
    if paths is None:
        return None
    found: set[str] = set()
    for path in paths:
        parts = path.split("/")
        fixed: list[str] = []
        for part in parts:
            if _WILD & set(part):
                break
            fixed.append(part)
            if os.path.islink(os.path.join(root, *fixed)):
                return None
        if not fixed:
            return None
        found.add("/".join(fixed))
    return sorted(
        one
        for one in found
        if not any(
            "/".join(one.split("/")[:count]) in found for count in range(1, one.count("/") + 1)
        )
    )
