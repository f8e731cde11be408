"""Put archive members into a directory, strictly inside it.

Every member is made relative to a descriptor of its directory, which only
:func:`sampan.layer.names.open_parent` hands out; the member itself is created with flags that
follow no link. A regular file costs openat, write, utimensat and close.

The order of attributes matters: chown(2) clears set-id bits and capabilities, so modes and
extended attributes come after it, times last of all, and directories' times at the very end.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress

from sampan.errors import ArchiveRefused, InvalidParameter, SampanError, storage_error
from sampan.kernel.openat import RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, openat2
from sampan.layer.entry import (
    BLOCK_DEVICE,
    CHARACTER,
    DIRECTORY,
    FIFO,
    HARD_LINK,
    SYMBOLIC_LINK,
    Entry,
)
from sampan.layer.lowers import Lowers, is_whiteout
from sampan.layer.model import Whiteouts
from sampan.layer.names import (
    OPAQUE,
    WHITEOUT,
    WHITEOUT_META,
    link_target,
    open_parent,
    show,
    split,
)
from sampan.layer.reader import TarReader
from sampan.layer.removal import remove
from sampan.layer.tree import DIRECTORY_FLAGS, HOST_XATTRS, portable_xattrs
from sampan.layer.whiteout import Made, make_whiteout, set_opaque
from sampan.model.idmap import IdMap

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_ID = (1 << 32) - 2
_OPEN_DIRECTORIES = 128
_MAX_TIME = (1 << 34) - 1
#: Errors that say the archive is wrong, not the disk.
_REFUSED = frozenset(
    getattr(errno, name)
    for name in (
        *("ENAMETOOLONG", "ENOTDIR", "EISDIR", "ELOOP", "EINVAL", "ENOENT"),
        *("EPERM", "EACCES", "EXDEV", "EMLINK", "EEXIST"),
    )
)


class Extractor:
    """Extracts into directory ``prefix`` (normalised) of descriptor ``root``, the caller's.

    Links are followed as inside ``root``. ``owner`` replaces every owner; ``keep_kinds`` refuses
    to replace a directory by something else or the other way round. ``ids``: owners are meant
    inside this user namespace, the directory is seen from outside. A context manager.
    """

    def __init__(
        self,
        root: int,
        *,
        prefix: bytes = b"",
        whiteouts: Whiteouts,
        lowers: Lowers | None = None,
        owner: tuple[int, int] | None = None,
        keep_kinds: bool = False,
        ids: IdMap | None = None,
    ) -> None:
        self._root = root
        self._ids = ids
        self._prefix = prefix
        self._whiteouts = whiteouts
        # Links in a layer that climb out are an attack; those of a container's own tree only
        # mean what they mean inside it.
        self._strict = whiteouts is not Whiteouts.LITERAL
        self._lowers = lowers
        self._owner = owner if owner is None or ids is None else ids.outside(*owner)
        self._keep_kinds = keep_kinds
        self._umask = _umask()
        # New directories of ours have no set-group-id bit unless an entry sets it: then, or when
        # the directories are not ours, files do not simply belong to 0:0 and must be chowned.
        self._always_chown = whiteouts is not Whiteouts.OVERLAY or (
            os.geteuid(),
            os.getegid(),
        ) != (0, 0)
        self._directories: dict[bytes, int] = {b"": root}
        self._times: dict[bytes, int] = {}
        self._made_before = Made()
        #: Directories made because a name needed them, that no entry (or lower) described.
        self.implicit: dict[bytes, None] = {b"": None}
        self._makers: dict[bytes, Callable[[Entry, int, bytes], None]] = {
            SYMBOLIC_LINK: self._symbolic_link,
            HARD_LINK: self._hard_link,
            CHARACTER: self._node,
            BLOCK_DEVICE: self._node,
            FIFO: self._node,
        }

    def __enter__(self) -> Extractor:
        return self

    def __exit__(self, *exception: object) -> None:
        self._forget()

    def extract(self, reader: TarReader) -> None:
        """All members; raises as :func:`sampan.layer.apply.apply` says."""
        for entry in reader:
            try:
                self._member(entry, reader)
            except OSError as error:
                raise _translate(error, entry) from error
        try:
            self._set_directory_times()
        except OSError as error:
            raise storage_error(error, "setting times of directories") from error

    def _member(self, entry: Entry, reader: TarReader) -> None:
        directory, base = split(entry.name)
        if not 0 <= entry.uid <= _MAX_ID or not 0 <= entry.gid <= _MAX_ID:
            raise ArchiveRefused(f"the owner of {show(entry.name)} is out of range")
        if self._ids is not None and self._owner is None:
            self._to_outside(entry)
        if not base:
            self._root_entry(entry)
            return
        if self._prefix:
            directory = _join(self._prefix, directory) if directory else self._prefix
        parent = self._parent(directory)
        if base.startswith(WHITEOUT) and self._whiteouts is not Whiteouts.LITERAL:
            self._whiteout(directory, parent, base)
            return
        if self._whiteouts is Whiteouts.REMOVE:
            self._made_before.add(_join(directory, base))
        if entry.type == DIRECTORY:
            self._directory(entry, directory, parent, base)
        elif maker := self._makers.get(entry.type):
            maker(entry, parent, base)
        else:
            self._regular(entry, parent, base, reader)

    def _to_outside(self, entry: Entry) -> None:
        assert self._ids is not None
        outside = self._ids.outside(entry.uid, entry.gid)
        if outside is None:
            raise ArchiveRefused(
                f"the owner of {show(entry.name)}, {entry.uid}:{entry.gid}, has no id in the "
                "container's user namespace"
            )
        entry.uid, entry.gid = outside

    # directories on the way

    def _parent(self, path: bytes) -> int:
        fd = self._directories.get(path)
        if fd is not None:
            return fd
        try:
            fd = self._open(path)
        except FileNotFoundError:
            fd = self._make_parents(path)
        return self._remember(path, fd)

    def _open(self, path: bytes) -> int:
        """A new descriptor of a directory that exists."""
        return open_parent(self._root, path or b".", strict=self._strict)

    def _remember(self, path: bytes, fd: int) -> int:
        if len(self._directories) >= _OPEN_DIRECTORIES:
            oldest = next(key for key in self._directories if key)
            os.close(self._directories.pop(oldest))
        self._directories[path] = fd
        return fd

    def _forget(self) -> None:
        """Close remembered directories: some may have been replaced."""
        for path, fd in self._directories.items():
            if path:
                os.close(fd)
        self._directories = {b"": self._root}

    def _make_parents(self, path: bytes) -> int:
        """Directories the archive takes for granted, as they are in lower layers if there."""
        parts = path.split(b"/")
        made = b""
        for part in parts:
            parent = made
            made = _join(made, part)
            try:
                os.close(self._open(made))
                continue
            except FileNotFoundError:
                pass
            entry = Entry(name=made, type=DIRECTORY, mode=0o755)
            model = self._lowers.directory(made) if self._lowers else None
            if model is not None:
                entry.mode = stat.S_IMODE(model.st_mode)
                entry.uid, entry.gid = model.st_uid, model.st_gid
                entry.mtime = model.st_mtime_ns
                self._times[made] = model.st_mtime_ns
            else:
                self.implicit[made] = None
                if self._ids is not None:
                    self._to_outside(entry)
            fd = self._open(parent)
            try:
                os.mkdir(part, 0o700, dir_fd=fd)
                child = os.open(part, DIRECTORY_FLAGS, dir_fd=fd)
            except FileExistsError as error:
                raise ArchiveRefused(
                    f"the archive's directory {show(path)} goes through a link to nowhere"
                ) from error
            finally:
                os.close(fd)
            try:
                os.fchown(child, entry.uid, entry.gid)
                os.fchmod(child, entry.mode)
            finally:
                os.close(child)
        return self._open(path)

    # members

    def _root_entry(self, entry: Entry) -> None:
        """``./`` describes the destination itself; ``docker cp`` leaves that alone."""
        if entry.type == DIRECTORY and self._whiteouts is not Whiteouts.LITERAL:
            fd = os.open(".", DIRECTORY_FLAGS, dir_fd=self._root)
            try:
                _strip_xattrs(fd, entry)
                self._attributes(entry, fd)
            finally:
                os.close(fd)
            self.implicit.pop(b"", None)
            self._times[b""] = entry.mtime

    def _directory(self, entry: Entry, directory: bytes, parent: int, base: bytes) -> None:
        path = _join(directory, base)
        opaque = existing = False
        try:
            os.mkdir(base, 0o700, dir_fd=parent)
        except FileExistsError:
            status = os.lstat(base, dir_fd=parent)
            existing = stat.S_ISDIR(status.st_mode)
            if not existing:
                opaque = self._whiteouts is Whiteouts.OVERLAY and is_whiteout(status)
                self._clear(entry, parent, base)
                os.mkdir(base, 0o700, dir_fd=parent)
        fd = os.open(base, DIRECTORY_FLAGS, dir_fd=parent)
        try:
            if existing and self._whiteouts is not Whiteouts.LITERAL:
                _strip_xattrs(fd, entry)
            self._attributes(entry, fd)
            if opaque:  # the layer both hides what was there and has a directory of the name
                set_opaque(fd)
        except BaseException:
            os.close(fd)
            raise
        self.implicit.pop(path, None)
        self._times[path] = entry.mtime
        if path in self._directories:
            os.close(fd)
        else:
            self._remember(path, fd)

    def _attributes(self, entry: Entry, fd: int) -> None:
        """Owner, mode and extended attributes of an open directory."""
        uid, gid = self._owner or (entry.uid, entry.gid)
        if uid or gid or self._always_chown:
            os.fchown(fd, uid, gid)
        os.fchmod(fd, entry.mode)
        if entry.mode & stat.S_ISGID:
            self._always_chown = True
        for key, value in entry.xattrs.items():
            self._set_xattr(fd, key, value)

    def _regular(self, entry: Entry, parent: int, base: bytes, reader: TarReader) -> None:
        mode = entry.mode
        fd = self._create(
            lambda: os.open(base, _CREATE, mode & 0o777, dir_fd=parent), entry, parent, base
        )
        try:
            if entry.sparse is None:
                if entry.stored:
                    reader.copy(fd)
            else:
                self._sparse(entry, fd, reader)
            uid, gid = self._owner or (entry.uid, entry.gid)
            if uid or gid or self._always_chown:
                os.fchown(fd, uid, gid)
            if mode & (self._umask | 0o7000):
                os.fchmod(fd, mode)
            for key, value in entry.xattrs.items():
                self._set_xattr(fd, key, value)
            _set_times(fd, entry.mtime)
        finally:
            os.close(fd)

    def _sparse(self, entry: Entry, fd: int, reader: TarReader) -> None:
        os.ftruncate(fd, entry.size)
        for offset, length in entry.sparse or ():
            os.lseek(fd, offset, os.SEEK_SET)
            reader.copy(fd, length)

    def _symbolic_link(self, entry: Entry, parent: int, base: bytes) -> None:
        self._create(lambda: os.symlink(entry.link, base, dir_fd=parent), entry, parent, base)
        self._finish(entry, parent, base, follow_mode=False)

    def _node(self, entry: Entry, parent: int, base: bytes) -> None:
        kind = {CHARACTER: stat.S_IFCHR, BLOCK_DEVICE: stat.S_IFBLK}.get(entry.type, stat.S_IFIFO)
        device = 0 if kind == stat.S_IFIFO else os.makedev(entry.major, entry.minor)
        self._create(
            lambda: os.mknod(base, kind | entry.mode & 0o777, device, dir_fd=parent),
            entry,
            parent,
            base,
        )
        self._finish(entry, parent, base, follow_mode=True)

    def _finish(self, entry: Entry, parent: int, base: bytes, *, follow_mode: bool) -> None:
        """Attributes of what cannot be opened: by a path through its directory's descriptor."""
        uid, gid = self._owner or (entry.uid, entry.gid)
        if uid or gid or self._always_chown:
            os.chown(base, uid, gid, dir_fd=parent, follow_symlinks=False)
        chmod = follow_mode and entry.mode & (self._umask | 0o7000)
        if chmod or entry.xattrs:
            fd = os.open(base, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
            try:
                path = b"/proc/self/fd/%d" % fd
                if chmod:
                    os.chmod(path, entry.mode)
                for key, value in entry.xattrs.items():
                    self._set_xattr(path, key, value)
            finally:
                os.close(fd)
        _set_times(base, entry.mtime, parent)

    def _hard_link(self, entry: Entry, parent: int, base: bytes) -> None:
        directory, target = link_target(entry.name, entry.link)
        source = self._open(_join(self._prefix, directory) if directory else self._prefix)
        try:
            try:
                status = os.lstat(target, dir_fd=source)
            except FileNotFoundError:
                raise ArchiveRefused(
                    f"the archive's hard link {show(entry.name)} has the target "
                    f"{show(entry.link)}, which does not exist"
                ) from None
            if stat.S_ISDIR(status.st_mode):
                raise ArchiveRefused(
                    f"the archive's hard link {show(entry.name)} is of a directory"
                )
            with suppress(FileNotFoundError):
                if os.path.samestat(os.lstat(base, dir_fd=parent), status):
                    return  # a link to itself
            self._create(
                lambda: os.link(
                    target, base, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False
                ),
                entry,
                parent,
                base,
            )
        finally:
            os.close(source)

    def _create(
        self, make: Callable[[], int | None], entry: Entry, parent: int, base: bytes
    ) -> int:
        """``make()``, after removing what has the name already; its result, or -1."""
        try:
            result = make()
        except FileExistsError:
            self._clear(entry, parent, base)
            result = make()
        return -1 if result is None else result

    def _clear(self, entry: Entry, parent: int, base: bytes) -> None:
        """Make way for ``entry``: remove what is there."""
        status = os.lstat(base, dir_fd=parent)
        directory = stat.S_ISDIR(status.st_mode)
        if self._keep_kinds and directory != (entry.type == DIRECTORY):
            old, new = (
                ("directory", "non-directory") if directory else ("non-directory", "directory")
            )
            top = "/" + os.fsdecode(self._prefix)
            shown = os.path.normpath(os.path.join(top, os.fsdecode(entry.name)))
            raise InvalidParameter(f'cannot overwrite {old} "{shown}" with {new} "{top}"')
        remove(parent, base)
        if directory or stat.S_ISLNK(status.st_mode):
            # Remembered directories may have led through it; keep only the one in use.
            keep = next((path for path, fd in self._directories.items() if fd == parent), b"")
            for path in [path for path in self._directories if path not in (b"", keep)]:
                os.close(self._directories.pop(path))

    def _whiteout(self, directory: bytes, parent: int, base: bytes) -> None:
        if base == OPAQUE:
            if self._whiteouts is Whiteouts.OVERLAY:
                set_opaque(parent)
            else:
                self._made_before.remove_in(parent, directory)
                self._forget()
            return
        if base.startswith(WHITEOUT_META):
            return
        name = base[len(WHITEOUT) :]
        if name in (b"", b".", b".."):
            raise ArchiveRefused(f"the archive's whiteout {show(base)} names nothing")
        if self._whiteouts is Whiteouts.OVERLAY:
            make_whiteout(parent, name)
        else:
            self._made_before.remove_one(parent, _join(directory, name), name)
            self._forget()

    # attributes

    def _set_xattr(self, where: int | bytes, key: bytes, value: bytes) -> None:
        if key.startswith(HOST_XATTRS):
            return
        try:
            os.setxattr(where, key, value)
        except OSError as error:
            # A file system without this kind of attribute keeps the file without it, as every
            # engine does; capabilities lost so show when the program is run.
            if error.errno != errno.ENOTSUP:
                raise

    def _set_directory_times(self) -> None:
        """Children first is not needed: setting a time inside changes no directory's time."""
        flags = os.O_RDONLY | os.O_DIRECTORY
        for path, mtime in self._times.items():
            try:
                fd = openat2(
                    self._root, path or b".", flags, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS
                )
            except OSError:  # replaced by a later entry: its time is no longer wanted
                continue
            try:
                _set_times(fd, mtime)
            finally:
                os.close(fd)


def _strip_xattrs(fd: int, entry: Entry) -> None:
    """Remove what an existing directory has and its new entry does not (attributes replace)."""
    for key in portable_xattrs(fd, b"."):
        if key not in entry.xattrs:
            os.removexattr(fd, key)


def _set_times(where: int | bytes, mtime: int, parent: int | None = None) -> None:
    try:
        if parent is None:
            os.utime(where, ns=(mtime, mtime))
        else:
            os.utime(where, ns=(mtime, mtime), dir_fd=parent, follow_symlinks=False)
    except OverflowError:  # a time no file system can hold
        limit = _MAX_TIME * 1_000_000_000
        _set_times(where, min(max(mtime, -limit), limit), parent)


def _join(directory: bytes, base: bytes) -> bytes:
    return directory + b"/" + base if directory else base


def _umask() -> int:
    """This process's umask, read without changing it (proc(5), Linux 4.7)."""
    with open("/proc/self/status", "rb") as status:
        for line in status:
            if line.startswith(b"Umask:"):
                return int(line.split()[1], 8)
    return 0o777  # unknown: set every mode explicitly


def _translate(error: OSError, entry: Entry) -> SampanError:
    if error.errno in _REFUSED:
        return ArchiveRefused(f"cannot extract {show(entry.name)}: {error.strerror}")
    return storage_error(error, f"extracting {show(entry.name)}")
