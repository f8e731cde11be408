"""``docker cp``: read and write paths inside a root given as a descriptor, never outside it.

Semantics of ``/containers/{id}/archive`` (spec/docker-api). ``root`` is a directory descriptor
of the container's root: ``/proc/<pid>/root`` opened, or
:func:`sampan.snapshot.rootfs.detached_mount`. Every path is resolved with openat2(2)
RESOLVE_IN_ROOT, so a container that changes links meanwhile gains nothing (CVE-2018-15664), and
nothing of the container is executed or loaded (CVE-2019-14271).
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from sampan.errors import InvalidParameter, NotFound, storage_error
from sampan.kernel.openat import in_root
from sampan.layer.extract import Extractor
from sampan.layer.model import DEFAULT_LIMITS, Limits, PathStat, Readable, Whiteouts
from sampan.layer.reader import TarReader
from sampan.layer.source import Incoming, Source, decompress
from sampan.layer.tree import Node, walk
from sampan.layer.writer import TarWriter
from sampan.model.idmap import IdMap

_LINKS = 40  # as the kernel: path_resolution(7)
#: Go's os.FileMode bits (package io/fs), which the API speaks.
_GO_MODES = {
    stat.S_IFDIR: 1 << 31,
    stat.S_IFLNK: 1 << 27,
    stat.S_IFBLK: 1 << 26,
    stat.S_IFCHR: 1 << 26 | 1 << 21,
    stat.S_IFIFO: 1 << 25,
    stat.S_IFSOCK: 1 << 24,
}
_GO_SETUID, _GO_SETGID, _GO_STICKY = 1 << 23, 1 << 22, 1 << 20


class _Place(NamedTuple):
    """A path resolved: ``name`` in the directory ``parent`` (its descriptor, to be closed)."""

    parent: int
    name: bytes
    base: str
    status: os.stat_result


def archive_stat(root: int, path: str, *, container: str = "") -> PathStat:
    """What is at ``path``; the last component is followed only with a trailing ``/`` or ``/.``.

    Raises NotFound with docker's sentence, which names ``container``.
    """
    place = _find(root, path, container)
    try:
        return _describe(root, path, place)
    finally:
        os.close(place.parent)


def archive_get(
    root: int, path: str, *, container: str = "", ids: IdMap | None = None
) -> tuple[PathStat, Iterator[bytes]]:
    """``path`` as a tar stream whose entries start with its base name, and its stat.

    ``ids``: owners are told as they are inside this user namespace, ``root`` being seen from
    outside. The iterator is blocking; close it to stop early. Raises as :func:`archive_stat`.
    """
    place = _find(root, path, container)
    try:
        described = _describe(root, path, place)
    except BaseException:
        os.close(place.parent)
        raise
    return described, _archive(place, ids)


def _archive(place: _Place, ids: IdMap | None) -> Iterator[bytes]:
    writer = TarWriter(ids)
    try:
        base = os.fsencode(place.base)
        prefix = b"" if base == b"/" else base
        yield from writer.node(Node(base, place.parent, place.name, place.status), base)
        if stat.S_ISDIR(place.status.st_mode):
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            directory = os.open(place.name, flags, dir_fd=place.parent)
            try:
                for node in walk(directory):
                    yield from writer.node(node, prefix + b"/" + node.path)
            finally:
                os.close(directory)
        yield from writer.finish()
    except OSError as error:
        raise storage_error(error, f"reading {place.base} of the container") from error
    finally:
        os.close(place.parent)


def archive_put(
    root: int,
    path: str,
    stream: Readable,
    *,
    no_overwrite_dir_non_dir: bool = False,
    owner: tuple[int, int] | None = None,
    limits: Limits = DEFAULT_LIMITS,
    container: str = "",
    ids: IdMap | None = None,
) -> None:
    """Extract a tar stream (gzip, zstd, bzip2, xz or plain) into directory ``path``.

    ``owner`` (uid, gid) replaces the owners in the archive (``copyUIDGID``); both are meant inside
    the user namespace with ``ids``, if there is one. Raises NotFound,
    InvalidParameter ("extraction point is not a directory", "cannot overwrite directory ..."),
    ArchiveRefused. What was extracted before a failure stays, as with docker.
    """
    try:
        directory = in_root(root, _absolute(path), os.O_PATH)
    except OSError as error:
        raise _not_found(error, path, container) from error
    try:
        if not stat.S_ISDIR(os.fstat(directory).st_mode):
            raise InvalidParameter("extraction point is not a directory")
    finally:
        os.close(directory)
    incoming = Incoming(stream, hashed=False)
    source = Source(decompress(incoming), limits.within(root), incoming)
    # Absolute links below the directory start at the container's root, so that is what confines;
    # the directory is looked up again for every member, inside the root each time.
    with Extractor(
        root,
        prefix=resolved(root, os.fsencode(_absolute(path))).strip(b"/"),
        whiteouts=Whiteouts.LITERAL,
        owner=owner,
        keep_kinds=no_overwrite_dir_non_dir,
        ids=ids,
    ) as extractor:
        extractor.extract(TarReader(source, limits, padding_optional=True))
    source.drain()


def _absolute(path: str) -> str:
    """``path`` from the root; a trailing ``/`` or ``/.`` stays, because it means "follow"."""
    if "\0" in path:
        raise InvalidParameter("the path contains a zero byte")
    cleaned = posixpath.normpath("/" + path.lstrip("/"))
    bare = path.rstrip("/")
    if cleaned == "/" and (bare == "." or bare.endswith("/.")):
        return "/."  # also of "/./": what it says is the directory, not its name
    if path.endswith(("/", "/.")):
        cleaned = cleaned.rstrip("/") + ("/." if path.endswith(".") else "/")
    return cleaned


def _find(root: int, path: str, container: str) -> _Place:
    """Resolve all but the last component, which is looked at without following it."""
    absolute = _absolute(path)
    directory, _, name = absolute.rpartition("/")
    trailing = name in ("", ".")
    base = posixpath.basename(directory) or "/" if name == "" else name
    if name == "." and directory == "":
        base = "."
    try:
        parent = in_root(root, directory or "/", os.O_PATH | os.O_DIRECTORY)
    except OSError as error:
        raise _not_found(error, path, container) from error
    inner = b"." if trailing else os.fsencode(name)
    try:
        return _Place(parent, inner, base, os.lstat(inner, dir_fd=parent))
    except OSError as error:
        os.close(parent)
        raise _not_found(error, path, container) from error


def _describe(root: int, path: str, place: _Place) -> PathStat:
    status = place.status
    target = ""
    if stat.S_ISLNK(status.st_mode):
        target = os.fsdecode(resolved(root, os.fsencode(_absolute(path))))
    return PathStat(
        name=place.base,
        size=status.st_size,
        mode=_go_mode(status.st_mode),
        mtime_ns=status.st_mtime_ns,
        link_target=target,
    )


def _go_mode(mode: int) -> int:
    value = mode & 0o777 | _GO_MODES.get(stat.S_IFMT(mode), 0)
    for bit, go_bit in (
        (stat.S_ISUID, _GO_SETUID),
        (stat.S_ISGID, _GO_SETGID),
        (stat.S_ISVTX, _GO_STICKY),
    ):
        if mode & bit:
            value |= go_bit
    return value


def resolved(root: int, path: bytes) -> bytes:
    """The absolute path that ``path`` leads to inside ``root``; what is missing stays literal.

    Only told to the client, who asks again with it; every use of it is confined by the kernel.
    """
    pending = path.split(b"/")[::-1]
    done: list[bytes] = []
    links = 0
    while pending:
        part = pending.pop()
        if part in (b"", b"."):
            continue
        if part == b"..":
            del done[-1:]
            continue
        target = _readlink(root, b"/".join([b"", *done, part]))
        if target is None or links >= _LINKS:
            done.append(part)
            continue
        links += 1
        if target.startswith(b"/"):
            done.clear()
        pending.extend(target.split(b"/")[::-1])
    return b"/" + b"/".join(done)


def _readlink(root: int, path: bytes) -> bytes | None:
    with suppress(OSError):
        fd = in_root(root, path, os.O_PATH | os.O_NOFOLLOW)
        try:
            return os.readlink(b"", dir_fd=fd)
        finally:
            os.close(fd)
    return None


def _not_found(error: OSError, path: str, container: str) -> NotFound | InvalidParameter:
    if error.errno in (errno.ENOENT, errno.ELOOP):
        return NotFound(f"Could not find the file {path} in container {container}".rstrip())
    reason = (error.strerror or str(error)).lower()  # as Go words errors, which clients look for
    return InvalidParameter(f"cannot look up {path} in the container: {reason}")
