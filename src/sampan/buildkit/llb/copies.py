"""FileActionCopy: what a copy brings, as tar entries for the root it is put into (blocking).

Names, defaults and corner cases are those of fsutil's copy, which BuildKit uses: where a single
file ends up, that directories above appear only with something in them, and that of what is there
already only the top of a directory's copy keeps its attributes.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace

from sampan.build.actions import is_archive_file
from sampan.build.copying import Item, Owner, is_directory, item_of
from sampan.build.filemode import change_mode
from sampan.build.selection import Source, Taken, Tree, resolve, take
from sampan.buildkit.llb.graph import absolute
from sampan.buildkit.protocol import ops_pb2 as ops
from sampan.dockerfile.ignore import IgnoreMatcher
from sampan.errors import NotFound
from sampan.kernel.openat import in_root
from sampan.layer.entry import DIRECTORY, SYMBOLIC_LINK, Entry

_WILD = frozenset("*?[\\")
_DIRECTORY_MODE = 0o755


@dataclass(frozen=True, slots=True, kw_only=True)
class Copying:
    """One copy between two trees; ``owner`` None keeps owners, ``root`` is what it is put into."""

    action: ops.FileActionCopy
    tree: Tree
    root: int
    owner: Owner | None

    def sources(self) -> list[Source]:
        """What is copied. Raises NotFound."""
        action, path = self.action, absolute(self.action.src)
        wild = action.allowWildcard and _WILD & set(path)
        try:
            if not wild:
                return [self._source(path)]
            return resolve(self.tree, (path,))
        except NotFound:
            if wild and action.allowEmptyWildcard:
                return []
            raise

    def _source(self, path: str) -> Source:
        """A path as it is written; the link itself unless links are to be followed."""
        relative = path.strip("/")
        flags = os.O_PATH if self.action.followSymlink else os.O_PATH | os.O_NOFOLLOW
        try:
            fd = in_root(self.tree.root, relative or ".", flags)
        except OSError:
            raise NotFound(f'"{path}": not found') from None
        try:
            return Source(path=relative, status=os.fstat(fd), by_wildcard=False)
        finally:
            os.close(fd)

    def archives(self) -> list[str]:
        """The sources that are archives to unpack, where that is asked for."""
        if not self.action.attemptUnpackDockerCompatibility:
            return []
        return [one.path for one in self.sources() if is_archive_file(self.tree, one)]

    def items(self) -> Iterator[Item]:
        """Everything but the archives, sources in order, directories above made as needed.

        Raises NotFound for sources and required paths that are not there.
        """
        archives = self.archives()
        if archives:
            target = absolute(self.action.dest)
            yield from self._above(target, end="")
        for source in self.sources():
            if source.path not in archives:
                yield from self._one(source)

    def _one(self, source: Source) -> Iterator[Item]:
        action = self.action
        destination = absolute(action.dest)
        in_directory = action.dest.endswith(("/", "/."))
        exists = in_directory or is_directory(self.root, destination)
        into = exists and not (stat.S_ISDIR(source.status.st_mode) and action.dirCopyContents)
        name = posixpath.join(destination, posixpath.basename(source.path)) if into else destination
        whole = stat.S_ISDIR(source.status.st_mode) and action.dirCopyContents
        ends = [destination] if in_directory else []
        if whole:
            ends.append(name)
        yield from self._above(posixpath.dirname(name), end=ends[-1] if ends else "")
        taken = take(self.tree, source, name=name.strip("/"))
        if stat.S_ISLNK(source.status.st_mode):
            taken = self._link(source, name.strip("/"))
        for item in self._filtered(source, taken):
            top = item.entry.name == os.fsencode(name.strip("/"))
            if top and item.entry.type == DIRECTORY and (whole or is_directory(self.root, name)):
                continue
            yield item

    def _link(self, source: Source, name: str) -> Iterator[Taken]:
        directory, base = posixpath.split(source.path)
        parent = in_root(self.tree.root, directory or ".", os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield Taken(
                path=os.fsencode(source.path),
                name=os.fsencode(name),
                parent=parent,
                base=os.fsencode(base),
                status=source.status,
            )
        finally:
            os.close(parent)

    def _above(self, directory: str, *, end: str) -> Iterator[Item]:
        """The directories down to ``directory`` (and to ``end``) that are not there yet."""
        owner = self.owner or Owner(uid=0, gid=0)
        wanted = [directory, end] if end else [directory]
        made: set[str] = set()
        for path in wanted:
            parts = path.strip("/").split("/")
            for count in range(1, len(parts) + 1):
                part = "/".join(parts[:count])
                if not part or part in made or is_directory(self.root, part):
                    continue
                made.add(part)
                mode = _DIRECTORY_MODE if self.action.mode == -1 else self.action.mode
                entry = Entry(
                    name=os.fsencode(part),
                    type=DIRECTORY,
                    mode=mode & 0o7777,
                    uid=owner.uid,
                    gid=owner.gid,
                    mtime=max(self.action.timestamp, 0),
                )
                yield Item(entry=entry)

    def _filtered(self, source: Source, found: Iterator[Taken]) -> Iterator[Item]:
        """What the patterns leave; a directory above something only once that comes."""
        action = self.action
        include = IgnoreMatcher(action.include_patterns) if action.include_patterns else None
        exclude = IgnoreMatcher(action.exclude_patterns) if action.exclude_patterns else None
        required = {path.strip("/") for path in action.required_paths} if include else set()
        waiting: list[tuple[str, Item]] = []
        for taken in found:
            path = os.path.relpath(os.fsdecode(taken.path) or ".", source.path or ".")
            if path == ".":
                yield self._finished(taken)
                continue
            while waiting and not path.startswith(waiting[-1][0] + "/"):
                waiting.pop()
            required.discard(posixpath.join(source.path, path))
            if (include and not include.ignores(path)) or (exclude and exclude.ignores(path)):
                if stat.S_ISDIR(taken.status.st_mode):
                    waiting.append((path, self._finished(taken)))
                continue
            for _, above in waiting:
                yield above
            waiting.clear()
            yield self._finished(taken)
        for path in sorted(required):
            raise NotFound(f'"/{path}": not found')

    def _finished(self, taken: Taken) -> Item:
        action, item = self.action, item_of(taken)
        entry = item.entry
        if self.owner is not None:
            entry = replace(entry, uid=self.owner.uid, gid=self.owner.gid)
        if entry.type != SYMBOLIC_LINK:
            text = action.modeStr or ("" if action.mode == -1 else f"{action.mode & 0o7777:o}")
            if text:
                mode = change_mode(text, entry.mode, entry.type == DIRECTORY)
                entry = replace(entry, mode=mode)
        if action.timestamp != -1:
            entry = replace(entry, mtime=action.timestamp)
        return replace(item, entry=entry)
