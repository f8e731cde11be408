"""Make layers: file system changes as a deterministic tar stream, in chunks.

Whiteouts come before their siblings and an opaque mark before everything in its directory, as
the OCI image spec (layer.md "Whiteouts") recommends.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Container, Iterator, Sequence
from pathlib import Path

from sampan.layer.compare import Difference, compare_trees
from sampan.layer.lowers import Lowers, is_opaque, is_whiteout
from sampan.layer.model import Change, ChangeKind
from sampan.layer.names import OPAQUE, WHITEOUT
from sampan.layer.tree import DIRECTORY_FLAGS, Node, names, open_directory, portable_xattrs, walk
from sampan.layer.writer import TarWriter


def diff_overlay(
    upper: Path, lowers: Sequence[Path] = (), *, without: Container[bytes] = ()
) -> Iterator[bytes]:
    """The changes in an overlay's upper directory, as an uncompressed layer.

    Lower directories are never walked; ``lowers`` (topmost first) only serve to leave out marks
    about names that no lower layer has, and to see whether the root itself changed. ``without``
    are paths (relative) to leave out, such as mount points a runtime made.
    """
    writer = TarWriter()
    root = os.open(upper, DIRECTORY_FLAGS)
    try:
        with Lowers(lowers) as below:
            yield from _changed_root(writer, root, below)
            for node in walk(root, first=is_whiteout):
                if node.path in without or _unrepresentable(node.path):
                    continue
                if is_whiteout(node.status):
                    if not below or below.lookup(node.path) is not None:
                        yield from writer.marker(_whiteout(node.path))
                    continue
                yield from writer.node(node)
                if (
                    stat.S_ISDIR(node.status.st_mode)
                    and is_opaque(node.parent, node.name)
                    and (not below or below.directory(node.path) is not None)
                ):
                    yield from writer.marker(node.path + b"/" + OPAQUE)
        yield from writer.finish()
    finally:
        os.close(root)


def _changed_root(writer: TarWriter, root: int, below: Lowers) -> Iterator[bytes]:
    """An entry for the root if it is not as the topmost lower one, or as a plain new one."""
    status = os.fstat(root)
    before = below.root_status()
    usual = (
        (stat.S_IFDIR | 0o755, 0, 0)
        if before is None
        else (before.st_mode, before.st_uid, before.st_gid)
    )
    own = portable_xattrs(root, b".")
    if (status.st_mode, status.st_uid, status.st_gid) != usual or (own and before is None):
        yield from writer.node(Node(b"./", root, b".", status))


def _unrepresentable(path: bytes) -> bool:
    """Whether a name on the path looks like a whiteout: no layer can hold such a file.

    "It is not possible to create a filesystem which has a file or directory with a name beginning
    with .wh." (OCI layer.md); written as it is, it would delete something when applied.
    """
    return path.startswith(WHITEOUT) or b"/" + WHITEOUT in path


def _whiteout(path: bytes) -> bytes:
    directory, slash, name = path.rpartition(b"/")
    return directory + slash + WHITEOUT + name


def diff_trees(lower: int | None, upper: int) -> Iterator[bytes]:
    """The changes between two whole trees (directory descriptors), as an uncompressed layer.

    Changed entries come with the directories above them. With ``lower`` None the whole of
    ``upper``, names like whiteouts included literally: what ``docker export`` writes.
    """
    writer = TarWriter()
    if lower is None:
        with Lowers(()) as nothing:
            top = os.open(".", DIRECTORY_FLAGS, dir_fd=upper)
            try:
                yield from _changed_root(writer, top, nothing)
            finally:
                os.close(top)
        for node in walk(upper):
            yield from writer.node(node)
    else:
        differences = compare_trees(lower, upper)
        for path, deleted in _with_parents(differences):
            if _unrepresentable(path):
                continue
            if deleted:
                yield from writer.marker(_whiteout(path))
            else:
                yield from _emit(writer, upper, path)
    yield from writer.finish()


def _with_parents(differences: Sequence[Difference]) -> Iterator[tuple[bytes, bool]]:
    """(path, deleted) of each difference, after the directories above it, each path once."""
    done: set[bytes] = set()
    for difference in differences:
        missing: list[bytes] = []
        parent = difference.path.rpartition(b"/")[0]
        while parent and parent not in done:
            done.add(parent)
            missing.append(parent)
            parent = parent.rpartition(b"/")[0]
        for path in reversed(missing):
            yield path, False
        if difference.path not in done:
            done.add(difference.path)
            yield difference.path, difference.kind is ChangeKind.DELETED


def _emit(writer: TarWriter, root: int, path: bytes) -> Iterator[bytes]:
    directory, _, name = path.rpartition(b"/")
    parent = open_directory(root, directory)
    try:
        status = os.lstat(name or b".", dir_fd=parent)
        yield from writer.node(Node(path or b"./", parent, name or b".", status))
    finally:
        os.close(parent)


def changes_overlay(upper: Path, lowers: Sequence[Path]) -> list[Change]:
    """What ``docker diff`` lists for an overlay, sorted by path."""
    changes: list[Change] = []
    hiding: set[bytes] = set()  # directories whose lower contents are gone
    root = os.open(upper, DIRECTORY_FLAGS)
    try:
        with Lowers(lowers) as below:
            for node in walk(root):
                kind = _overlay_kind(node, below)
                if kind is not None:
                    changes.append(Change(b"/" + node.path, kind))
                if not stat.S_ISDIR(node.status.st_mode):
                    continue
                directory = node.path.rpartition(b"/")[0]
                if directory in hiding or is_opaque(node.parent, node.name):
                    hiding.add(node.path)
                    changes.extend(_hidden(root, node.path, below))
    finally:
        os.close(root)
    return sorted(changes)


def _overlay_kind(node: Node, below: Lowers) -> ChangeKind | None:
    before = below.lookup(node.path)
    if is_whiteout(node.status):
        return ChangeKind.DELETED if before else None
    if before is None:
        return ChangeKind.ADDED
    old, new = before[1], node.status
    if (
        stat.S_ISDIR(new.st_mode)
        and (old.st_mode, old.st_uid, old.st_gid) == (new.st_mode, new.st_uid, new.st_gid)
        and old.st_mtime_ns == new.st_mtime_ns
    ):
        return None  # only there because something below it changed
    return ChangeKind.MODIFIED


def _hidden(root: int, directory: bytes, below: Lowers) -> Iterator[Change]:
    """What an opaque directory took away."""
    fd = open_directory(root, directory)
    try:
        present = set(names(fd))
    finally:
        os.close(fd)
    for name in below.names(directory):
        if name not in present:
            yield Change(b"/" + directory + b"/" + name, ChangeKind.DELETED)


def changes_trees(lower: int, upper: int) -> list[Change]:
    """What ``docker diff`` lists for two whole trees, sorted by path."""
    return sorted(
        Change(b"/" + difference.path, difference.kind)
        for difference in compare_trees(lower, upper)
        if difference.path
    )
