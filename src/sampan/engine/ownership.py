"""The ``U`` option of mounts: the source is given to the container's user (as podman does)."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Sequence

from sampan.engine import idmapspec
from sampan.engine.record import MountRecord
from sampan.errors import InvalidParameter, SampanError
from sampan.layer.tree import DIRECTORY_FLAGS, walk
from sampan.model.idmap import IdMap

#: directories of the host that are nobody's to give away
_HOST_DIRECTORIES = frozenset({"/", "/var/lib", "/var/log", "/var/run", "/var/tmp"}) | {
    f"{above}/{name}"
    for above, names in (
        ("", ("bin", "boot", "dev", "etc", "home", "lib", "lib32", "lib64", "media", "mnt", "opt")),
        ("", ("proc", "root", "run", "sbin", "srv", "sys", "tmp", "usr", "var")),
        ("/usr", ("bin", "lib", "local", "sbin", "share")),
    )
    for name in names
}


def check(mounts: Sequence[MountRecord]) -> None:
    """Refuse ``U`` where it would take the host apart. Raises InvalidParameter."""
    for mount in mounts:
        if mount.chown and mount.type == "bind":
            for path in (posixpath.normpath(mount.source), os.path.realpath(mount.source)):
                if path in _HOST_DIRECTORIES:
                    raise InvalidParameter(
                        f"mount option U: changing the owner of the host's {path} is not allowed"
                    )


def owner_on_disk(mount: MountRecord, user: tuple[int, int], ids: IdMap | None) -> tuple[int, int]:
    """Who has to own a source on disk for it to be ``user``'s inside.

    Raises InvalidParameter when the user has no ids on the host.
    """
    mapping = idmapspec.custom(mount.idmap, ids) if mount.idmap else None
    if ids is None and mapping is None:
        return user
    if mapping is None and (mount.idmap or mount.type == "volume"):
        return user  # shown through the container's own map
    shown = user if ids is None else ids.outside(*user)
    if shown is None:
        raise InvalidParameter(
            f"mount option U of {mount.destination}: {user[0]}:{user[1]} is not in the container's "
            "user namespace"
        )
    return shown if mapping is None else idmapspec.on_disk(mapping, *shown)


def give(path: str, uid: int, gid: int) -> None:
    """Make ``path`` and everything below it ``uid``'s and ``gid``'s; links are not followed.

    Blocks. Raises SampanError.
    """
    try:
        status = os.stat(path)
        if (status.st_uid, status.st_gid) != (uid, gid):
            os.chown(path, uid, gid)
        if not os.path.isdir(path):
            return
        root = os.open(path, DIRECTORY_FLAGS & ~os.O_NOFOLLOW)
        try:
            for node in walk(root):
                if (node.status.st_uid, node.status.st_gid) != (uid, gid):
                    os.chown(node.name, uid, gid, dir_fd=node.parent, follow_symlinks=False)
        finally:
            os.close(root)
    except OSError as error:
        raise SampanError(f"cannot change the owner of {path}: {error.strerror}") from error
