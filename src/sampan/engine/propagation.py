"""Whether the host's mounts can pass on what a bind asks for (mount_namespaces(7)).

A bind of a private mount would be made without an error and pass nothing on: it is refused by
name, in dockerd's words.
"""

from __future__ import annotations

from collections.abc import Sequence

from sampan.engine.mountspec import on_one_path
from sampan.engine.record import MountRecord
from sampan.errors import InvalidParameter
from sampan.kernel import mountinfo
from sampan.kernel.mount import mount_id

_NEEDED = {
    "shared": (("shared",), "a shared mount"),
    "slave": (("shared", "master"), "a shared or slave mount"),
}


def check(mounts: Sequence[MountRecord], root: str) -> None:
    """Raise InvalidParameter for a bind whose source is on a mount of another kind. Blocks.

    ``root``: the data root. What holds it, or lies in it, is a slave without anybody having asked
    (:func:`mountspec.beside_root`); of a private mount that means no more than private.
    """
    asking = [
        mount
        for mount in mounts
        if mount.propagation.removeprefix("r") in _NEEDED
        and not (mount.propagation == "rslave" and on_one_path(mount.source, root))
    ]
    if not asking:
        return
    mounted = {entry.mount_id: entry for entry in mountinfo.entries(mountinfo.own())}
    for mount in asking:
        found = mounted.get(mount_id(mount.source))
        kinds, wanted = _NEEDED[mount.propagation.removeprefix("r")]
        if found is None or found.kinds.isdisjoint(kinds):
            point = found.point if found is not None else "an unknown mount"
            raise InvalidParameter(
                f"path {mount.source} is mounted on {point} but it is not {wanted}"
            )
