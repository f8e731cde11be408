"""Users of an image or container, read from outside in its own passwd and group files."""

from __future__ import annotations

import os
import secrets

from sampan.engine.core import Core
from sampan.engine.userns import DEFAULT_SIZE
from sampan.errors import InvalidParameter
from sampan.image import Image
from sampan.runtime import identity
from sampan.snapshot.rootfs import detached_mount

#: ids a user namespace has at least (as podman's)
_LEAST = 1024
_NOBODY = 65534


def ids_needed(core: Core, image: Image, user: str) -> int:
    """How many ids an image's users take, and ``user``. Blocks.

    The nobody of passwd files counts only as ``user``: it would take all ids for one that owns
    nothing. Raises as :func:`lookup`.
    """
    if image.chain_id is None:
        return _LEAST
    core.unpacker.unpack(image)
    key = f"users-{secrets.token_hex(8)}"
    root = detached_mount(core.snapshots.view(key, str(image.chain_id)))
    try:
        wanted = lookup(root, user)
        listed = [
            number
            for path in ("etc/passwd", "etc/group")
            for number in identity.numbers(identity.read_database(root, path))
            if number != _NOBODY
        ]
    finally:
        os.close(root)
        core.snapshots.remove(key)
    return min(max(_LEAST, *(number + 1 for number in (*wanted, *listed))), DEFAULT_SIZE)


def lookup(root: int, user: str) -> tuple[int, int]:
    """User and group a container started as ``user`` runs as; ``root``: its root directory.

    Raises InvalidParameter for a name that is in neither file.
    """
    passwd = identity.read_database(root, "etc/passwd")
    group = identity.read_database(root, "etc/group")
    try:
        found = identity.resolve(user, (), passwd, group)
    except identity.UnknownName as error:
        raise InvalidParameter(str(error)) from None
    return found.uid, found.gid
