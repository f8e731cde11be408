"""Whether the host's mounts can pass on what a bind asks for (mount_namespaces(7)).

A bind of a private mount would be made without an error and pass nothing on: it is refused by
name, in dockerd's words.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import NamedTuple

from sampan.engine.mountspec import on_one_path
from sampan.engine.record import MountRecord
from sampan.errors import InvalidParameter
from sampan.kernel.mount import mount_id

_NEEDED = {
    "shared": (("shared",), "a shared mount"),
    "slave": (("shared", "master"), "a shared or slave mount"),
}


class Carrier(NamedTuple):
    """A mount of this namespace; ``kinds``: the names of its optional fields."""

    point: str
    kinds: frozenset[str]


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
    with open("/proc/thread-self/mountinfo", "rb") as file:
        table = file.read()
    for mount in asking:
        found = carrier(table, mount_id(mount.source))
        kinds, wanted = _NEEDED[mount.propagation.removeprefix("r")]
        if found is None or found.kinds.isdisjoint(kinds):
            point = found.point if found is not None else "an unknown mount"
            raise InvalidParameter(
                f"path {mount.source} is mounted on {point} but it is not {wanted}"
            )


def carrier(table: bytes, wanted: int) -> Carrier | None:
    """The mount ``wanted`` in the text of a mountinfo file (proc_pid_mountinfo(5))."""
    for line in table.splitlines():
        fields = line.split()
        if int(fields[0]) != wanted:
            continue
        # Space, tab, newline and backslash are written as octal escapes.
        point = re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), fields[4])
        optional = fields[6 : fields.index(b"-", 6)]
        kinds = frozenset(field.partition(b":")[0].decode() for field in optional)
        return Carrier(os.fsdecode(point), kinds)
    return None
