"""``docker cp``: read and write paths inside a root given as a descriptor, never outside it.

Semantics of ``/containers/{id}/archive`` (spec/docker-api). ``root`` is a directory descriptor
of the container's root: ``/proc/<pid>/root`` opened, or
:func:`sampan.snapshot.rootfs.detached_mount`. Every path is resolved with openat2(2)
RESOLVE_IN_ROOT, so a container that changes links meanwhile gains nothing (CVE-2018-15664), and
nothing of the container is executed or loaded (CVE-2019-14271).
"""

from __future__ import annotations

from collections.abc import Iterator

from sampan.layer.model import DEFAULT_LIMITS, Limits, PathStat, Readable


def archive_stat(root: int, path: str) -> PathStat:
    """What is at ``path``; the last component is followed only with a trailing ``/`` or ``/.``.

    Raises NotFound with docker's sentence.
    """
    raise NotImplementedError


def archive_get(root: int, path: str) -> tuple[PathStat, Iterator[bytes]]:
    """``path`` as a tar stream whose entries start with its base name, and its stat.

    The iterator is blocking; close it to stop early. Raises NotFound.
    """
    raise NotImplementedError


def archive_put(
    root: int,
    path: str,
    stream: Readable,
    *,
    no_overwrite_dir_non_dir: bool = False,
    owner: tuple[int, int] | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> None:
    """Extract a tar stream (gzip, zstd, bzip2, xz or plain) into directory ``path``.

    ``owner`` (uid, gid) replaces the owners in the archive (``copyUIDGID``). Raises NotFound,
    InvalidParameter ("extraction point is not a directory", "cannot overwrite directory ..."),
    ArchiveRefused. What was extracted before a failure stays, as with docker.
    """
    raise NotImplementedError
