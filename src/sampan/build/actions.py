"""What steps do to a root: copy, unpack, make directories (blocking; over descriptors).

Everything inside the root goes through :mod:`sampan.layer`, which never leaves it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace

from sampan.build.copying import (
    Chunks,
    ContentHashes,
    Item,
    Owner,
    archive,
    digest,
    directories,
    is_directory,
    parent,
)
from sampan.build.copying import items as copied_items
from sampan.build.owner import needs_root, resolve_owner
from sampan.build.selection import Source, Tree, resolve
from sampan.build.steps import CopyStep
from sampan.errors import ArchiveRefused
from sampan.kernel.openat import in_root, make_directories
from sampan.layer import archive_put
from sampan.layer.entry import BLOCK, parse_header
from sampan.layer.model import Readable
from sampan.layer.source import Incoming, decompress


@dataclass(frozen=True, slots=True, kw_only=True)
class Copying:
    """One COPY or ADD, its sources looked up: ``plain`` is what is copied as it is, ``archives``
    the sources that ADD unpacks."""

    step: CopyStep
    archives: tuple[str, ...]
    owner: Owner | None
    into_directory: bool
    mtime: int

    @property
    def plain(self) -> CopyStep:
        """The step without the sources that are unpacked."""
        sources = tuple(path for path in self.step.sources if path not in self.archives)
        return replace(self.step, sources=sources)

    def items(self, tree: Tree | None) -> Iterator[Item]:
        """What is copied."""
        return copied_items(
            self.plain,
            tree,
            owner=self.owner,
            destination_is_directory=self.into_directory,
            mtime=self.mtime,
        )

    def content(self, tree: Tree | None, hashes: ContentHashes) -> str:
        """The content hash of everything the step brings."""
        found = digest(self.items(tree), hashes)
        if self.archives and tree is not None:
            packed = replace(self.step, sources=self.archives, inline=())
            whole = copied_items(
                packed, tree, owner=self.owner, destination_is_directory=True, mtime=self.mtime
            )
            found += ":" + digest(whole, hashes)
        return found


def look_up(
    step: CopyStep,
    tree: Tree | None,
    root: int | None,
    *,
    keeps_owner: bool,
    mtime: int,
    several: bool,
) -> Copying:
    """Decide owner and form of a copy. ``root`` is the stage's root, None when it is empty.

    ``several`` tells that the whole step has more than one source.
    """
    owner = None if keeps_owner else Owner(uid=0, gid=0)
    if step.chown:
        if root is None and needs_root(step.chown):
            root = -1
        owner = resolve_owner(step.chown, -1 if root is None else root)
    archives: tuple[str, ...] = ()
    if step.add and step.unpack is not False and tree is not None:
        archives = tuple(_archives(tree, step.sources))
        if archives:  # what a pattern matches may be some of both
            paths = [one.path for path in step.sources for one in resolve(tree, (path,))]
            step = replace(step, sources=tuple(paths))
    return Copying(
        step=step,
        archives=archives,
        owner=owner,
        into_directory=several
        or (root is not None and root >= 0 and is_directory(root, step.destination)),
        mtime=mtime,
    )


def _archives(tree: Tree, patterns: tuple[str, ...]) -> Iterator[str]:
    """The paths of sources that are local tar archives, compressed or not."""
    for pattern in patterns:
        if "://" not in pattern:
            for source in resolve(tree, (pattern,)):
                if is_archive_file(tree, source):
                    yield source.path


def is_archive_file(tree: Tree, source: Source) -> bool:
    """Whether a file of a tree is a tar archive, compressed or not."""
    if not stat.S_ISREG(source.status.st_mode):
        return False
    fd = in_root(tree.root, source.path, os.O_RDONLY)
    with os.fdopen(fd, "rb") as file:
        return is_archive(file)


def is_archive(file: Readable) -> bool:
    """Whether what a file holds is a tar, compressed or not, by its first header.

    A file that is compressed and holds something else is no archive.
    """
    head = bytearray()
    try:
        for piece in decompress(Incoming(file, hashed=False)):
            head += piece
            if len(head) >= BLOCK:
                parse_header(bytes(head[:BLOCK]))
                return True
    except ArchiveRefused:
        return False
    return False


def copy(copying: Copying, tree: Tree | None, root: int) -> None:
    """Do the copy into ``root``."""

    def present(name: bytes) -> bool:
        return is_directory(root, os.fsdecode(name))

    above = parent(copying.step.chmod, copying.owner, copying.mtime)
    archive_put(root, "/", Chunks(archive(copying.items(tree), present, above)))
    for pattern in copying.archives:
        assert tree is not None
        (source,) = resolve(tree, (pattern,))
        made = directories(copying.step.destination, present, above)
        archive_put(root, "/", Chunks(made))
        fd = in_root(tree.root, source.path, os.O_RDONLY)
        owner = copying.owner if copying.step.chown else None  # else what the archive says
        with os.fdopen(fd, "rb") as file:
            archive_put(
                root,
                copying.step.destination,
                file,
                owner=(owner.uid, owner.gid) if owner else None,
            )


def make_directory(root: int, path: str, owner: str) -> None:
    """WORKDIR: make ``path`` with its parents; the directory itself belongs to ``owner``."""
    uid_gid = resolve_owner(owner, root) if owner else None
    fd = make_directories(root, path)
    try:
        if uid_gid is not None:
            os.chown(f"/proc/self/fd/{fd}", uid_gid.uid, uid_gid.gid)
    finally:
        os.close(fd)


def missing(root: int | None, paths: tuple[str, ...]) -> tuple[str, ...]:
    """The paths (and parents of them) that do not exist in ``root``, deepest first.

    What the runtime makes of them as mount points must not stay in the layer.
    """
    found: list[str] = []
    for path in paths:
        parts = path.strip("/").split("/")
        for count in range(1, len(parts) + 1):
            part = "/".join(parts[:count])
            if root is None or not _exists(root, part):
                found.append(part)
    return tuple(sorted(set(found), key=lambda part: (-part.count("/"), part)))


def remove_stubs(root: int, paths: tuple[str, ...]) -> None:
    """Remove mount points the runtime made: empty directories and empty files only."""
    for path in paths:
        parent, _, name = path.rpartition("/")
        try:
            fd = in_root(root, parent or ".", os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            continue
        try:
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                os.rmdir(name, dir_fd=fd)
            elif stat.S_ISREG(status.st_mode) and status.st_size == 0:
                os.unlink(name, dir_fd=fd)
        except OSError:
            continue  # used by the step after all: it stays
        finally:
            os.close(fd)


def _exists(root: int, path: str) -> bool:
    try:
        os.close(in_root(root, path, os.O_PATH | os.O_NOFOLLOW))
    except OSError:
        return False
    return True
