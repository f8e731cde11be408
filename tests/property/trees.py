"""Directory trees as values: made by hypothesis, put on disk, read back for comparison."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import strategies as st

from sampan.layer.tree import portable_xattrs, walk


@dataclass(frozen=True)
class Item:
    """One file: ``kind`` is a letter (f, d, l, c, p), ``same`` makes it a link to another path."""

    kind: str
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    data: bytes = b""
    mtime: int = 0
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    same: int = -1


@dataclass(frozen=True)
class Tree:
    """Items by path; every directory of a path is an item too."""

    items: dict[bytes, Item] = field(default_factory=dict)


#: Few, so that trees collide often; odd on purpose. Not ``.wh.``: no image can hold such a name.
NAMES = [b"a", b"b", b"etc", b"\xff\xfe", b"new\nline", "ü".encode(), b" ", b".hidden", b"x" * 120]
_names = st.sampled_from(NAMES)
_mtimes = st.sampled_from([0, 1_700_000_000 * 10**9, 1_700_000_000 * 10**9 + 123_456_789, -(10**9)])
_xattrs = st.lists(
    st.tuples(st.sampled_from([b"user.one", b"user.two=x"]), st.binary(max_size=20)),
    max_size=2,
    unique_by=lambda pair: pair[0],
).map(tuple)


def _items() -> st.SearchStrategy[Item]:
    attributes = {
        "uid": st.sampled_from([0, 1000, 3_000_000_000]),
        "gid": st.sampled_from([0, 42]),
        "mtime": _mtimes,
    }
    modes = st.sampled_from([0o644, 0o755, 0o4755, 0o2711, 0o1777, 0, 0o666])
    files = st.builds(
        Item,
        kind=st.just("f"),
        mode=modes,
        data=st.sampled_from([b"", b"one", b"two", b"x" * 513, bytes(70_000)]),
        xattrs=_xattrs,
        same=st.sampled_from([-1, -1, -1, 0, 1, 2]),
        **attributes,
    )
    directories = st.builds(Item, kind=st.just("d"), mode=modes, xattrs=_xattrs, **attributes)
    links = st.builds(
        Item,
        kind=st.just("l"),
        mode=st.just(0o777),
        data=st.sampled_from([b"a", b"/etc", b"../b", b"l" * 150, b"\xff"]),
        **attributes,
    )
    nodes = st.builds(
        Item,
        kind=st.sampled_from(["c", "p"]),
        mode=modes,
        data=st.sampled_from([b"1", b"4095"]),
        **attributes,
    )
    return st.one_of(files, files, directories, directories, links, nodes)


def _assemble(pairs: list[tuple[tuple[bytes, ...], Item]]) -> Tree:
    """Paths whose directories exist; the first use of a path decides what it is."""
    items: dict[bytes, Item] = {}
    for parts, item in pairs:
        usable = True
        for depth in range(1, len(parts)):
            above = b"/".join(parts[:depth])
            if items.setdefault(above, Item("d", 0o755)).kind != "d":
                usable = False
                break
        if usable:
            items.setdefault(b"/".join(parts), item)
    return Tree(items)


def trees() -> st.SearchStrategy[Tree]:
    """Trees of up to twelve items, up to three directories deep."""
    paths = st.lists(_names, min_size=1, max_size=3).map(tuple)
    return st.lists(st.tuples(paths, _items()), max_size=12).map(_assemble)


def edits(tree: Tree) -> st.SearchStrategy[Tree]:
    """``tree`` with some items gone, some changed and some new."""
    keep = st.lists(st.booleans(), min_size=len(tree.items), max_size=len(tree.items))

    def edit(kept: list[bool], other: Tree) -> Tree:
        pairs = [
            (tuple(path.split(b"/")), item)
            for (path, item), stays in zip(tree.items.items(), kept, strict=True)
            if stays
        ]
        return _assemble(
            [(tuple(path.split(b"/")), item) for path, item in other.items.items()] + pairs
        )

    return st.builds(edit, keep, trees())


def build(tree: Tree, root: Path) -> None:
    """Put ``tree`` on disk below directory ``root``."""
    top = os.fsencode(root)
    files: list[bytes] = []
    for path in sorted(tree.items):
        item, full = tree.items[path], top + b"/" + path
        if item.kind == "f" and 0 <= item.same < len(files):
            os.link(files[item.same], full)
            continue
        _make(item, full)
        if item.kind == "f":
            files.append(full)
    for path in sorted(tree.items, reverse=True):  # times of directories after their contents
        item = tree.items[path]
        os.utime(top + b"/" + path, ns=(item.mtime, item.mtime), follow_symlinks=False)


def _make(item: Item, full: bytes) -> None:
    if item.kind == "d":
        os.mkdir(full)
    elif item.kind == "l":
        os.symlink(item.data, full)
    elif item.kind == "p":
        os.mkfifo(full)
    elif item.kind == "c":
        os.mknod(full, stat.S_IFCHR, os.makedev(int(item.data), 7))
    else:
        Path(os.fsdecode(full)).write_bytes(item.data)
    os.chown(full, item.uid, item.gid, follow_symlinks=False)
    if item.kind != "l":
        os.chmod(full, item.mode)
    for key, value in item.xattrs:
        os.setxattr(full, key, value, follow_symlinks=False)


Described = dict[bytes, tuple[object, ...]]


def describe(root: Path | int) -> Described:
    """Everything about a tree that a layer must carry, by path."""
    fd = root if isinstance(root, int) else os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        found: Described = {}
        inodes: dict[tuple[int, int], bytes] = {}
        for node in walk(fd):
            status = node.status
            found[node.path] = (
                *(status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns),
                status.st_rdev,
                _content(node.parent, node.name, status),
                tuple(sorted(portable_xattrs(node.parent, node.name).items())),
                None
                if stat.S_ISDIR(status.st_mode)
                else inodes.setdefault((status.st_dev, status.st_ino), node.path),
            )
        return found
    finally:
        if not isinstance(root, int):
            os.close(fd)


def _content(parent: int, name: bytes, status: os.stat_result) -> bytes:
    if stat.S_ISLNK(status.st_mode):
        return os.readlink(name, dir_fd=parent)
    if stat.S_ISREG(status.st_mode):
        fd = os.open(name, os.O_RDONLY, dir_fd=parent)
        try:
            return os.read(fd, 1 << 20)
        finally:
            os.close(fd)
    return b""
