"""FileOp: files copied, made and removed on top of a root, one layer for each output (blocking)."""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import stat
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from sampan.build.copying import Chunks, ContentHashes, Owner, archive, digest, parent
from sampan.build.keys import graph_key
from sampan.build.owner import resolve_owner
from sampan.build.selection import Tree, matching, resolve
from sampan.build.work import uncomputed
from sampan.build.workspace import Workspace
from sampan.buildkit.llb.copies import Copying
from sampan.buildkit.llb.graph import EMPTY as NOTHING
from sampan.buildkit.llb.graph import absolute
from sampan.buildkit.llb.values import EMPTY, Directory, Root, Value, tree
from sampan.buildkit.protocol import ops_pb2 as ops
from sampan.errors import InvalidParameter, NotFound, SampanError
from sampan.kernel.mount import descriptor
from sampan.kernel.openat import in_root
from sampan.layer import archive_put
from sampan.layer.copy import resolved
from sampan.layer.removal import remove

#: Makes a root of a value, and finds or keeps what a vertex has made: see the solver.
Rooted = Callable[[Value], Root]
Made = Callable[[str, Root, Callable[[int], None]], Root]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileWork:
    """One FileOp and what it takes. ``make`` changes a root by a function unless that is known."""

    op: ops.FileOp
    inputs: Sequence[Value]
    workspace: Workspace
    hashes: ContentHashes
    rooted: Rooted
    make: Made

    def outputs(self) -> dict[int, Value]:
        """The roots by the number of their output."""
        return {
            action.output: self._after(number)
            for number, action in enumerate(self.op.actions)
            if action.output != NOTHING
        }

    def _after(self, number: int) -> Root:
        """The root once action ``number``, and what it goes on from, has been done."""
        chain = [number]
        while (before := self.op.actions[chain[-1]].input - len(self.inputs)) >= 0:
            chain.append(before)
        chain.reverse()
        base = self.rooted(self._value(self.op.actions[chain[0]].input))
        parts = [self._content(self.op.actions[one]) for one in chain]

        def act(root: int) -> None:
            for one in chain:
                self._act(self.op.actions[one], root)

        return self.make(graph_key("file", base.key, *parts), base, act)

    def _value(self, index: int) -> Value:
        if index == NOTHING:
            return EMPTY
        if index < len(self.inputs):
            return self.inputs[index]
        return self._after(index - len(self.inputs))

    def _content(self, action: ops.FileAction) -> str:
        """What an action does, as a key: itself, and the content of what it copies."""
        said = ops.FileAction()
        said.CopyFrom(action)
        said.input = said.secondaryInput = said.output = 0
        text = said.SerializeToString(deterministic=True).hex()
        text += "".join(self._names(owner) for owner in _owners(action))
        if action.WhichOneof("action") != "copy":
            return text
        value = self._value(action.secondaryInput)
        if isinstance(value, Directory) and value.known:
            return f"{text}{value.known}"
        with tree(value, self.workspace) as source, self.workspace.look(None) as empty:
            # where it is put does not count: that is the other input's affair
            copying = Copying(action=action.copy, tree=source, root=empty, owner=None)
            try:
                text += digest(copying.items(), self.hashes)
            except NotFound as error:
                key = value.key if isinstance(value, Root) else value.path.parent.name
                raise NotFound(uncomputed(key, error.message)) from None
            for path in copying.archives():
                fd = in_root(source.root, path, os.O_RDONLY)
                status = os.fstat(fd)
                text += self.hashes.of(status, lambda fd=fd: os.dup(fd)).hex()  # type: ignore[misc]
                os.close(fd)
        return text

    def _names(self, owner: ops.ChownOpt) -> str:
        """The key of the root whose files say which numbers names have."""
        found = [one.byName.input for one in (owner.user, owner.group) if one.HasField("byName")]
        return "".join(self.rooted(self._value(index)).key for index in found)

    def _act(self, action: ops.FileAction, root: int) -> None:
        kind = action.WhichOneof("action")
        try:
            match kind:
                case "copy":
                    self._copy(action, root)
                case "mkdir":
                    self._make_directory(action.mkdir, root)
                case "mkfile":
                    self._make_file(action.mkfile, root)
                case "symlink":
                    self._make_link(action.symlink, root)
                case "rm":
                    _remove(action.rm, root)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            path = getattr(getattr(action, kind or ""), "path", "")
            kinds = {errno.ENOENT: NotFound}
            raise kinds.get(error.errno or 0, SampanError)(f"{kind} {path}: {reason}") from error

    def _owner(self, asked: ops.ChownOpt | None) -> Owner | None:
        """Who files are to belong to; None when nobody is named."""
        if asked is None:
            return None
        found = Owner(uid=0, gid=0)
        if asked.HasField("user"):
            found = self._one(asked.user, "{}")
        if asked.HasField("group"):
            found = Owner(uid=found.uid, gid=self._one(asked.group, "0:{}").gid)
        return found

    def _one(self, asked: ops.UserOpt, form: str) -> Owner:
        if asked.WhichOneof("user") == "byID":
            return resolve_owner(form.format(asked.byID), -1)
        named = asked.byName
        with self.workspace.look(self.rooted(self._value(named.input)).chain) as root:
            return resolve_owner(form.format(named.name), root)

    def _copy(self, action: ops.FileAction, root: int) -> None:
        copy = action.copy
        owner = self._owner(copy.owner if copy.HasField("owner") else None)
        target = os.fsdecode(resolved(root, os.fsencode(absolute(copy.dest))))
        if not copy.createDestPath:
            os.close(in_root(root, posixpath.dirname(target).strip("/") or "."))
        with ExitStack() as stack:
            source = stack.enter_context(tree(self._value(action.secondaryInput), self.workspace))
            said = ops.FileActionCopy()
            said.CopyFrom(copy)
            said.dest = target + ("/" if copy.dest.endswith(("/", "/.")) else "")
            copying = Copying(action=said, tree=source, root=root, owner=owner)
            archive_put(
                root,
                "/",
                Chunks(archive(copying.items(), lambda _: True, parent("", owner, 0))),
                no_overwrite_dir_non_dir=not copy.alwaysReplaceExistingDestPaths,
            )
            for path in copying.archives():
                (found,) = resolve(source, (path,))
                with os.fdopen(in_root(source.root, found.path, os.O_RDONLY), "rb") as file:
                    archive_put(root, target, file, owner=(owner.uid, owner.gid) if owner else None)

    def _make_directory(self, action: ops.FileActionMkDir, root: int) -> None:
        path = os.fsdecode(resolved(root, os.fsencode(absolute(action.path))))
        parts = path.strip("/").split("/")
        owner = self._owner(action.owner if action.HasField("owner") else None)
        first = 1 if action.makeParents else len(parts)
        for count in range(first, len(parts) + 1):
            with descriptor(in_root(root, "/".join(parts[: count - 1]) or ".")) as parent:
                name = parts[count - 1]
                try:
                    os.mkdir(name, dir_fd=parent)
                except FileExistsError:
                    if not stat.S_ISDIR(os.stat(name, dir_fd=parent).st_mode):
                        raise
                    continue
                made = f"/proc/self/fd/{parent}/{name}"
                _settle(made, action.mode, owner, action.timestamp)

    def _make_file(self, action: ops.FileActionMkFile, root: int) -> None:
        path = resolved(root, os.fsencode(absolute(action.path)))
        directory, _, name = path.rpartition(b"/")
        if not name:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), "/")
        owner = self._owner(action.owner if action.HasField("owner") else None)
        with descriptor(in_root(root, directory.strip(b"/") or b".")) as parent:
            with contextlib.suppress(FileNotFoundError):  # never written through what is there
                os.unlink(name, dir_fd=parent)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with os.fdopen(os.open(name, flags, dir_fd=parent), "wb") as file:
                file.write(action.data)
            made = f"/proc/self/fd/{parent}/{os.fsdecode(name)}"
            _settle(made, action.mode, owner, action.timestamp)

    def _make_link(self, action: ops.FileActionSymlink, root: int) -> None:
        directory, name = posixpath.split(absolute(action.newpath))
        owner = self._owner(action.owner if action.HasField("owner") else None)
        with descriptor(in_root(root, directory.strip("/") or ".")) as parent:
            os.symlink(action.oldpath, name, dir_fd=parent)
            made = f"/proc/self/fd/{parent}/{name}"
            if owner is not None:
                os.chown(made, owner.uid, owner.gid, follow_symlinks=False)
            if action.timestamp != -1:
                os.utime(made, ns=(action.timestamp,) * 2, follow_symlinks=False)


def _settle(path: str, mode: int, owner: Owner | None, timestamp: int) -> None:
    """Owner, mode and time of what was just made."""
    if owner is not None:
        os.chown(path, owner.uid, owner.gid)
    os.chmod(path, mode & 0o777)
    if timestamp != -1:
        os.utime(path, ns=(timestamp, timestamp))


def _owners(action: ops.FileAction) -> list[ops.ChownOpt]:
    one = getattr(action, action.WhichOneof("action") or "", None)
    return [one.owner] if one is not None and hasattr(one, "owner") else []


def _remove(action: ops.FileActionRm, root: int) -> None:
    """Remove what a path names, or all that a pattern matches; the last link is not followed."""
    paths = [absolute(action.path)]
    if action.allowWildcard:
        paths = _matching(root, paths[0])
    for path in paths:
        directory, name = posixpath.split(path)
        if not name:
            raise InvalidParameter("rm: the root cannot be removed")
        try:
            with descriptor(in_root(root, directory.strip("/") or ".")) as parent:
                remove(parent, os.fsencode(name))
        except (FileNotFoundError, NotADirectoryError):
            if not action.allowNotFound:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from None


def _matching(root: int, pattern: str) -> list[str]:
    """The paths a pattern matches, links themselves and not where they lead."""
    return [f"/{path}" for path in matching(Tree(root=root), pattern.strip("/"))]
