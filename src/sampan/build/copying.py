"""What a COPY brings: its cache key, and the files themselves (thin effects over descriptors).

The key is computed from what is copied (names, types, modes, owners, contents, links, extended
attributes, never times), as BuildKit's content hash; so a step runs again only when something it
sees has changed.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from sampan.build.filemode import change_mode
from sampan.build.selection import Source, Taken, Tree, resolve, take
from sampan.build.steps import CopyStep
from sampan.errors import InvalidParameter
from sampan.kernel.openat import in_root
from sampan.layer.entry import (
    BLOCK,
    BLOCK_DEVICE,
    CHARACTER,
    DIRECTORY,
    FIFO,
    REGULAR,
    SYMBOLIC_LINK,
    Entry,
    format_entry,
)
from sampan.layer.tree import xattrs

_CHUNK = 1 << 20
_TYPES = {
    stat.S_IFREG: REGULAR,
    stat.S_IFDIR: DIRECTORY,
    stat.S_IFLNK: SYMBOLIC_LINK,
    stat.S_IFIFO: FIFO,
    stat.S_IFCHR: CHARACTER,
    stat.S_IFBLK: BLOCK_DEVICE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Whose the copied files are; None keeps the source's own."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One thing to copy: a tar entry named below the root, and how to open its contents.

    ``kept`` is a directory that keeps its own attributes where it is there already.
    """

    entry: Entry
    open: Callable[[], int] | None = None
    status: os.stat_result | None = None
    data: bytes = b""
    kept: bool = False


class ContentHashes:
    """Digests of files already read, kept while inode, size and times stay the same.

    ``limit`` bounds their number; beyond it the oldest half is forgotten.
    """

    def __init__(self, limit: int = 400_000) -> None:
        self._limit = limit
        self._known: dict[tuple[int, int, int, int, int], bytes] = {}

    def of(self, status: os.stat_result, opener: Callable[[], int]) -> bytes:
        """The SHA-256 of a regular file's contents."""
        key = (
            status.st_dev,
            status.st_ino,
            status.st_size,
            status.st_mtime_ns,
            status.st_ctime_ns,
        )
        known = self._known.get(key)
        if known is None:
            fd = opener()
            with os.fdopen(fd, "rb", buffering=0) as file:
                known = hashlib.file_digest(file, "sha256").digest()
            self._known[key] = known
            if len(self._known) > self._limit:
                for old in list(self._known)[: self._limit // 2]:
                    del self._known[old]
        return known


def items(
    step: CopyStep,
    tree: Tree | None,
    *,
    owner: Owner | None,
    destination_is_directory: bool,
    mtime: int,
) -> Iterator[Item]:
    """What the step brings, named from the root down, sources in order.

    ``owner`` replaces owners; ``mtime`` (nanoseconds) is that of here-documents;
    ``destination_is_directory`` tells that the destination exists and is one. Raises NotFound.
    """
    into_directory = step.destination.endswith("/") or destination_is_directory
    base = step.destination.strip("/")
    sources = resolve(tree, step.sources) if tree is not None and step.sources else []
    if step.parents:  # made even when patterns match nothing
        made = parent(step.chmod, owner, mtime)
        yield Item(entry=replace(made, name=os.fsencode(base)), kept=True)
    for source in sources:
        assert tree is not None
        name = _target(source, base, into_directory, parents=step.parents)
        for taken in take(tree, source, name=name, exclude=step.exclude, parents=step.parents):
            item = _finished(item_of(taken), step, owner)
            if taken.base != b"." or not stat.S_ISDIR(taken.status.st_mode):
                yield item
            elif step.parents:
                yield replace(item, kept=True)
            else:  # only what is in it is copied
                made = parent(step.chmod, owner, item.entry.mtime)
                yield Item(entry=replace(made, name=item.entry.name), kept=True)
    for document in step.inline:
        data = document.content.encode()
        name = posixpath.join(base, document.name) if into_directory else base
        entry = Entry(name=os.fsencode(name), size=len(data), stored=len(data), mtime=mtime)
        yield _finished(Item(entry=entry, data=data), step, owner or Owner(uid=0, gid=0))


def _target(source: Source, base: str, into_directory: bool, *, parents: bool) -> str:
    if parents or stat.S_ISDIR(source.status.st_mode) or not into_directory:
        return base
    return posixpath.join(base, posixpath.basename(source.path))


def item_of(taken: Taken) -> Item:
    """One thing taken as what is to be copied; its owner and mode are the source's."""
    status = taken.status
    kind = _TYPES.get(stat.S_IFMT(status.st_mode))
    if kind is None:  # a socket is nothing an image can hold
        kind = FIFO
    entry = Entry(
        name=taken.name,
        type=kind,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        mtime=status.st_mtime_ns,
    )
    path = b"/proc/self/fd/%d" % taken.parent
    if taken.base:
        path += b"/" + taken.base
        entry.xattrs = _portable(xattrs(taken.parent, taken.base))
    else:
        entry.xattrs = _portable(
            {os.fsencode(key): os.getxattr(path, key) for key in os.listxattr(path)}
        )
    if kind == SYMBOLIC_LINK:
        entry.link = os.readlink(path)
    elif kind in (CHARACTER, BLOCK_DEVICE):
        entry.major, entry.minor = os.major(status.st_rdev), os.minor(status.st_rdev)
    elif kind == REGULAR:
        entry.size = entry.stored = status.st_size
        return Item(
            entry=entry,
            open=lambda: os.open(path, os.O_RDONLY | os.O_CLOEXEC),
            status=status,
        )
    return Item(entry=entry)


def _portable(attributes: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """Attributes that belong to the file, not to the file system it happened to lie on."""
    return {
        key: value
        for key, value in attributes.items()
        if key.startswith((b"user.", b"security.capability"))
    }


def _finished(item: Item, step: CopyStep, owner: Owner | None) -> Item:
    entry = item.entry
    if owner is not None:
        entry = replace(entry, uid=owner.uid, gid=owner.gid)
    if step.chmod and entry.type != SYMBOLIC_LINK:
        entry = replace(entry, mode=change_mode(step.chmod, entry.mode, entry.type == DIRECTORY))
    return item if entry is item.entry else replace(item, entry=entry)


def digest(found: Iterable[Item], hashes: ContentHashes) -> str:
    """The content hash of what a step brings; times do not count."""
    total = hashlib.sha256()
    for item in found:
        entry = item.entry
        total.update(
            b"%b\0%b\0%o\0%d\0%d\0%d\0%b\0%d:%d\0"
            % (
                entry.name,
                entry.type,
                entry.mode,
                entry.uid,
                entry.gid,
                entry.size,
                entry.link,
                entry.major,
                entry.minor,
            )
        )
        for key in sorted(entry.xattrs):
            total.update(b"%b=%b\0" % (key, entry.xattrs[key]))
        if item.open is not None and item.status is not None:
            total.update(hashes.of(item.status, item.open))
        elif item.data:
            total.update(hashlib.sha256(item.data).digest())
    return total.hexdigest()


def parent(chmod: str, owner: Owner | None, mtime: int) -> Entry:
    """What a directory is like that a copy makes on its way: its owner's, with a mode of numbers.

    A mode in letters changes what there is, so it says nothing of what is made.
    """
    mode = change_mode(chmod, 0o755, True) if chmod.isdecimal() else 0o755
    owner = owner or Owner(uid=0, gid=0)
    return Entry(name=b"", type=DIRECTORY, mode=mode, uid=owner.uid, gid=owner.gid, mtime=mtime)


def directories(path: str, present: Callable[[bytes], bool], above: Entry) -> Iterator[bytes]:
    """A directory and those it lies in as a tar stream, as far as they are not there yet."""
    yield from _above(os.fsencode(path.strip("/")) + b"/", present, above, set())
    yield bytes(2 * BLOCK)


def _above(
    name: bytes, present: Callable[[bytes], bool], above: Entry, seen: set[bytes]
) -> Iterator[bytes]:
    """The directories above ``name`` that are not there yet, ``seen`` being those looked at."""
    directory = name.rpartition(b"/")[0]
    if not directory or directory in seen:
        return
    yield from _above(directory, present, above, seen)
    seen.add(directory)
    if not present(directory):
        yield format_entry(replace(above, name=directory))


def archive(
    found: Iterable[Item], present: Callable[[bytes], bool], above: Entry
) -> Iterator[bytes]:
    """The items as a tar stream, the directories they need ahead of them.

    ``present`` tells which directories the destination has; ``above`` is what others are like.
    """
    seen: set[bytes] = set()
    for item in found:
        entry = item.entry
        if not entry.name:
            continue
        yield from _above(entry.name, present, above, seen)
        if entry.type == DIRECTORY:
            seen.add(entry.name)
            if item.kept and present(entry.name):
                continue
        yield format_entry(entry)
        if item.open is not None:
            yield from _file(item)
        elif item.data:
            yield item.data
        yield bytes(-entry.stored % BLOCK)
    yield bytes(2 * BLOCK)


def _file(item: Item) -> Iterator[bytes]:
    """Exactly the announced number of bytes, whatever happens to the file meanwhile."""
    assert item.open is not None
    left = item.entry.stored
    with os.fdopen(item.open(), "rb", buffering=0) as file:
        while left:
            data = file.read(min(left, _CHUNK))
            if not data:
                raise InvalidParameter(
                    f"{os.fsdecode(item.entry.name)!r} changed while it was copied"
                )
            left -= len(data)
            yield data


def is_directory(root: int, path: str) -> bool:
    """Whether ``path`` inside ``root`` is a directory, links followed."""
    try:
        fd = in_root(root, path.strip("/") or ".", os.O_PATH | os.O_DIRECTORY)
    except OSError:
        return False
    os.close(fd)
    return True


class Chunks:
    """An iterator of chunks as something to read from."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._left = b""

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes, empty only at the end."""
        while not self._left:
            chunk = next(self._chunks, None)
            if chunk is None:
                return b""
            self._left = chunk
        data, self._left = self._left[:size], self._left[size:]
        return data
