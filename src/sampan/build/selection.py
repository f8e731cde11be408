"""Which files COPY and ADD take from a tree, under which names (reads the tree, writes nothing).

A tree is a directory descriptor: a build context, a stage's root, an image's root. Paths in it
are resolved by openat2(2) inside it, so a context's links cannot lead to the host's files.
Spec: spec/dockerfile/reference.md, "COPY", "ADD", "--parents", "--exclude".
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sampan.dockerfile.ignore import IgnoreMatcher, match
from sampan.errors import InvalidParameter, NotFound
from sampan.kernel.openat import in_root
from sampan.layer.tree import open_directory, walk

_WILD = frozenset("*?[")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """A tree files are taken from; ``ignore`` hides what ``.dockerignore`` names."""

    root: int
    ignore: IgnoreMatcher | None = None

    def hides(self, path: str) -> bool:
        """Whether the builder may not see ``path`` (relative to the root)."""
        return self.ignore is not None and self.ignore.ignores(path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """One file, directory or link taken: ``path`` where it is in the tree, ``name`` its name below
    the destination (empty: the destination itself); ``parent``, ``base`` open it until the next
    is taken."""

    path: bytes
    name: bytes
    parent: int
    base: bytes
    status: os.stat_result


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One source after wildcards: what it is, and whether a wildcard found it."""

    path: str
    status: os.stat_result
    by_wildcard: bool
    pivot: str = ""


def resolve(tree: Tree, patterns: Sequence[str]) -> list[Source]:
    """The sources that ``patterns`` name, in order, wildcards sorted.

    Raises :class:`NotFound` naming the path that is not there; a pattern may match nothing.
    """
    found: list[Source] = []
    for pattern in patterns:
        pivot, cleaned = _pivot(pattern)
        matches = list(matching(tree, cleaned)) if _WILD & set(cleaned) else [cleaned]
        before = len(found)
        for path in matches:
            status = _status(tree, path)
            if status is not None:
                found.append(
                    Source(
                        path=path,
                        status=status,
                        by_wildcard=path != cleaned,
                        pivot="/".join(path.split("/")[: pivot.count("/") + 1]) if pivot else "",
                    )
                )
        if len(found) == before and matches == [cleaned]:  # a pattern may well match nothing
            raise NotFound(f'"/{cleaned}": not found')
    return found


def take(
    tree: Tree, source: Source, *, name: str, exclude: Sequence[str] = (), parents: bool = False
) -> Iterator[Taken]:
    """Everything of ``source``: a file under ``name``, a directory's contents below it.

    With ``parents`` names keep the source's path (behind its ``/./`` pivot). A symbolic link that
    is the source itself is followed, links inside a directory are kept.
    """
    excluded = IgnoreMatcher(exclude) if exclude else None
    if parents:
        kept = posixpath.relpath(source.path, source.pivot) if source.pivot else source.path
        yield from _ancestors(tree, source, name, kept)
        name = posixpath.join(name, kept)
    if not stat.S_ISDIR(source.status.st_mode):
        if not (excluded and excluded.ignores(posixpath.basename(source.path))):
            yield from _file(tree, source, name)
        return
    root = in_root(tree.root, source.path or ".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        own = open_directory(root, b"")
        try:
            yield Taken(
                path=os.fsencode(source.path),
                name=os.fsencode(name),
                parent=own,
                base=b".",
                status=source.status,
            )
        finally:
            os.close(own)
        for node in walk(root):
            inside = os.fsdecode(node.path)
            if tree.hides(posixpath.join(source.path, inside)):
                continue
            if excluded and excluded.ignores(inside):
                continue
            yield Taken(
                path=os.fsencode(posixpath.join(source.path, inside)),
                name=os.fsencode(posixpath.join(name, inside)),
                parent=node.parent,
                base=node.name,
                status=node.status,
            )
    finally:
        os.close(root)


def _file(tree: Tree, source: Source, name: str) -> Iterator[Taken]:
    """The file itself: its directory and name after every link, the last included, is followed."""
    fd = in_root(tree.root, source.path, os.O_PATH)
    try:
        yield Taken(
            path=os.fsencode(source.path),
            name=os.fsencode(name),
            parent=fd,
            base=b"",
            status=os.fstat(fd),
        )
    finally:
        os.close(fd)


def _ancestors(tree: Tree, source: Source, name: str, kept: str) -> Iterator[Taken]:
    """The directories above a source that ``--parents`` keeps."""
    prefix = source.path[: len(source.path) - len(kept)]
    above = posixpath.dirname(kept)
    parts = above.split("/") if above else []
    for count in range(1, len(parts) + 1):
        path = prefix + "/".join(parts[:count])
        fd = in_root(tree.root, path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield Taken(
                path=os.fsencode(path),
                name=os.fsencode(posixpath.join(name, *parts[:count])),
                parent=fd,
                base=b".",
                status=os.fstat(fd),
            )
        finally:
            os.close(fd)


def _pivot(pattern: str) -> tuple[str, str]:
    """The part before a ``/./`` pivot, and the whole pattern made relative and clean."""
    before, found, _ = pattern.partition("/./")
    return (_clean(before) if found else ""), _clean(pattern)


def _clean(path: str) -> str:
    """Relative to the root, ``..`` stopping at it."""
    cleaned = posixpath.normpath(posixpath.join("/", path)).lstrip("/")
    return "" if cleaned == "." else cleaned


def _status(tree: Tree, path: str) -> os.stat_result | None:
    if path and tree.hides(path) and not _includes_below(tree, path):
        return None
    try:
        fd = in_root(tree.root, path or ".", os.O_PATH)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return None
        if error.errno == errno.ELOOP:
            raise InvalidParameter(f'"/{path}": too many levels of symbolic links') from error
        raise
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)


def _includes_below(tree: Tree, path: str) -> bool:
    """Whether an ignored directory may hold files that a ``!`` pattern brings back."""
    return tree.ignore is not None and tree.ignore.has_inclusions


def matching(tree: Tree, pattern: str) -> Iterator[str]:
    """Every path that matches, sorted; only directories below the fixed prefix are walked."""
    parts = pattern.split("/")
    fixed: list[str] = []
    while len(fixed) < len(parts) - 1 and not _WILD & set(parts[len(fixed)]):
        fixed.append(parts[len(fixed)])
    prefix = "/".join(fixed)
    depth = None if "**" in pattern else len(parts)
    try:
        root = in_root(tree.root, prefix or ".", os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return
        raise
    try:
        for inside in _names(root, None if depth is None else depth - len(fixed)):
            path = posixpath.join(prefix, inside)
            if match(pattern, path) and not tree.hides(path):
                yield path
    finally:
        os.close(root)


def _names(root: int, depth: int | None) -> Iterator[str]:
    """Paths below a directory, at most ``depth`` components long, sorted at every level."""
    if depth == 1:  # the common case: one listing instead of a walk
        yield from sorted(os.listdir(root))
        return
    for node in walk(root):
        path = os.fsdecode(node.path)
        if depth is None or path.count("/") < depth:
            yield path
