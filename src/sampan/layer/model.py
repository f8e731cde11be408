"""Values of layers: limits on what is extracted, where to, and what came of it."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from enum import Enum, IntEnum
from pathlib import Path
from typing import Protocol

from sampan.model.digest import Digest


class Readable(Protocol):
    """Anything bytes can be read from: a file, a socket's makefile, a response body."""

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes, empty only at the end."""
        ...


class Whiteouts(Enum):
    """What the names ``.wh.NAME`` and ``.wh..wh..opq`` in an archive mean."""

    #: Become overlay's own: character device 0/0, and ``trusted.overlay.opaque`` on a directory
    #: (Documentation/filesystems/overlayfs.rst "whiteouts and opaque directories").
    OVERLAY = "overlay"
    #: Remove what is there now (OCI image spec, layer.md "Applying Changesets").
    REMOVE = "remove"
    #: Nothing: ordinary files, as in ``docker cp`` and ``docker import``.
    LITERAL = "literal"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds on one archive; what goes beyond is refused as a bomb.

    ``entries`` is their number, ``size`` the bytes of the uncompressed archive, ``expanded`` the
    bytes of all files with the holes of sparse ones counted, ``ratio`` uncompressed over
    compressed size, judged once ``ratio_from`` bytes came out; ``header`` bytes of one extended
    header, ``path`` bytes of one name.

    Images hold files of zeros, which gzip makes a thousand and zstd twenty thousand times smaller:
    a ratio alone tells no bomb from them. It is one by what it would do, so that is judged, too:
    fill the disk (:meth:`within`), or keep a processor busy for long.
    """

    entries: int = 4_000_000
    size: int = 1 << 40
    expanded: int = 1 << 42
    ratio: int = 300
    ratio_from: int = 1 << 36
    header: int = 4 << 20
    path: int = 4096

    def within(self, root: int) -> Limits:
        """These for what goes to the file system ``root`` is a descriptor of.

        What expands beyond ``ratio`` may take nine tenths of what is free there.
        """
        status = os.fstatvfs(root)
        if not status.f_blocks:  # it does not tell (statfs(2): "undefined" values are zero)
            return self
        room = status.f_bavail * status.f_frsize
        return replace(self, ratio_from=min(self.ratio_from, room - room // 10))


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where a layer is applied.

    ``root`` is a directory; ``lowers`` are the directories below it in an overlay, topmost first:
    a directory the archive needs but does not bring is made with the attributes it has there.
    """

    root: Path
    whiteouts: Whiteouts
    lowers: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What was applied, with both digests computed on the way.

    ``digest`` (None unless it was to be verified) and ``compressed_size`` are of the stream as it
    came; ``diff_id`` and ``size`` of the tar inside; ``entries`` the number of entries.
    ``implicit`` are the directories made because a name needed them and no entry or lower
    directory had them, parents first; ``b""`` among them says that none described the root.
    """

    digest: Digest | None
    compressed_size: int
    diff_id: Digest
    size: int
    entries: int
    implicit: tuple[bytes, ...] = ()


class ChangeKind(IntEnum):
    """The numbers ``GET /containers/{id}/changes`` uses."""

    MODIFIED = 0
    ADDED = 1
    DELETED = 2


@dataclass(frozen=True, slots=True, order=True)
class Change:
    """One changed path, absolute within the container (``/etc/hosts``)."""

    path: bytes
    kind: ChangeKind


@dataclass(frozen=True, slots=True, kw_only=True)
class PathStat:
    """What ``HEAD /containers/{id}/archive`` answers in X-Docker-Container-Path-Stat.

    ``mode`` is Go's os.FileMode (spec/docker-api, "ContainerArchiveInfo"), ``mtime_ns`` in
    nanoseconds since the epoch, ``link_target`` the absolute path a symbolic link resolves to.
    """

    name: str
    size: int
    mode: int
    mtime_ns: int
    link_target: str = ""
