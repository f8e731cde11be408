"""Compare two whole trees: what the upper one changed."""

from __future__ import annotations

import errno
import os
import stat
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from sampan.layer.lowers import is_whiteout
from sampan.layer.model import ChangeKind
from sampan.layer.tree import names, open_directory, portable_xattrs

_PIECE = 256 << 10
_Inode = tuple[int, int]


class Difference(NamedTuple):
    """A changed path, relative to the root ("" is the root itself)."""

    path: bytes
    kind: ChangeKind


def compare_trees(lower: int, upper: int) -> list[Difference]:
    """The differences from ``lower`` to ``upper``, directories before their contents.

    A file counts as unchanged when type, owner, mode, size, times and attributes agree; the
    content itself is compared when the time has no fraction of a second, because archives often
    drop it. A file whose set of hard links changed is a change, so that links can be restored.
    """
    return list(_Comparison(lower, upper).run())


class _Comparison:
    def __init__(self, lower: int, upper: int) -> None:
        self._lower = lower
        self._upper = upper
        self._lower_links: dict[_Inode, set[bytes]] = defaultdict(set)
        self._upper_links: dict[_Inode, set[bytes]] = defaultdict(set)
        self._lower_inode: dict[bytes, _Inode] = {}
        self._upper_inode: dict[bytes, _Inode] = {}

    def run(self) -> Iterator[Difference]:
        changed = self._root()
        found: dict[bytes, ChangeKind] = {b"": ChangeKind.MODIFIED} if changed else {}
        order: list[bytes] = [b""]
        pending = [b""]
        while pending:
            self._directory(pending.pop(), found, order, pending)
        touched = self._touched_links(found)
        for path in order:
            if path in found:
                yield Difference(path, found[path])
            elif path in touched:
                yield Difference(path, ChangeKind.MODIFIED)

    def _root(self) -> bool:
        lower, upper = os.fstat(self._lower), os.fstat(self._upper)
        if _attributes(lower) != _attributes(upper):
            return True
        return portable_xattrs(self._lower, b".") != portable_xattrs(self._upper, b".")

    def _directory(
        self,
        path: bytes,
        found: dict[bytes, ChangeKind],
        order: list[bytes],
        pending: list[bytes],
    ) -> None:
        """Compare one directory that both trees have, or that only the upper one has."""
        upper = open_directory(self._upper, path)
        try:
            try:
                lower = open_directory(self._lower, path)
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                    raise
                lower = -1  # not there, or something else than a directory
            try:
                self._entries(path, lower, upper, found, order, pending)
            finally:
                if lower >= 0:
                    os.close(lower)
        finally:
            os.close(upper)

    def _entries(
        self,
        path: bytes,
        lower: int,
        upper: int,
        found: dict[bytes, ChangeKind],
        order: list[bytes],
        pending: list[bytes],
    ) -> None:
        mine = set(names(upper))
        before = set(names(lower)) if lower >= 0 else set()
        directories: list[bytes] = []
        here: list[bytes] = []
        for name in sorted(mine | before):
            inner = path + b"/" + name if path else name
            old = os.lstat(name, dir_fd=lower) if name in before else None
            new = os.lstat(name, dir_fd=upper) if name in mine else None
            if old is not None and is_whiteout(old):
                old = None
            here.append(inner)
            if old is not None:
                _note_links(old, inner, self._lower_links, self._lower_inode)
            if new is None:
                if old is not None:
                    found[inner] = ChangeKind.DELETED
                continue
            _note_links(new, inner, self._upper_links, self._upper_inode)
            if old is None:
                found[inner] = ChangeKind.ADDED
            elif not _same(lower, upper, name, old, new):
                found[inner] = ChangeKind.MODIFIED
            if stat.S_ISDIR(new.st_mode):
                directories.append(inner)
        order.extend(sorted(here, key=lambda one: found.get(one) is not ChangeKind.DELETED))
        pending.extend(reversed(directories))

    def _touched_links(self, found: dict[bytes, ChangeKind]) -> set[bytes]:
        """Files to be written again because one of their other names is, or their links changed."""
        touched: set[bytes] = set()
        for paths in self._upper_links.values():
            before = {
                frozenset(self._lower_links[self._lower_inode[path]])
                if path in self._lower_inode
                else frozenset((path,))
                for path in paths
            }
            if before != {frozenset(paths)} or any(path in found for path in paths):
                touched |= paths
        for paths in self._lower_links.values():
            if any(path not in self._upper_inode for path in paths):
                touched |= {path for path in paths if found.get(path) is not ChangeKind.DELETED}
        return touched


def _note_links(
    status: os.stat_result,
    path: bytes,
    links: dict[_Inode, set[bytes]],
    inodes: dict[bytes, _Inode],
) -> None:
    if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
        inode = (status.st_dev, status.st_ino)
        links[inode].add(path)
        inodes[path] = inode


def _attributes(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_mode, status.st_uid, status.st_gid


def _same(lower: int, upper: int, name: bytes, old: os.stat_result, new: os.stat_result) -> bool:
    """Whether the file of this name is the same in both directories."""
    if (old.st_dev, old.st_ino, old.st_ctime_ns) == (new.st_dev, new.st_ino, new.st_ctime_ns):
        return True
    if _attributes(old) != _attributes(new) or old.st_mtime_ns != new.st_mtime_ns:
        return False
    if stat.S_ISREG(new.st_mode):
        if old.st_size != new.st_size:
            return False
        whole_second = new.st_mtime_ns % 1_000_000_000 == 0
        if whole_second and new.st_size and not _same_content(lower, upper, name):
            return False
    elif stat.S_ISLNK(new.st_mode):
        if os.readlink(name, dir_fd=lower) != os.readlink(name, dir_fd=upper):
            return False
    elif (stat.S_ISCHR(new.st_mode) or stat.S_ISBLK(new.st_mode)) and old.st_rdev != new.st_rdev:
        return False
    return portable_xattrs(lower, name) == portable_xattrs(upper, name)


def _same_content(lower: int, upper: int, name: bytes) -> bool:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    first = os.open(name, flags, dir_fd=lower)
    try:
        second = os.open(name, flags, dir_fd=upper)
        try:
            while True:
                ours, theirs = os.read(first, _PIECE), os.read(second, _PIECE)
                if ours != theirs:
                    return False
                if not ours:
                    return True
        finally:
            os.close(second)
    finally:
        os.close(first)
