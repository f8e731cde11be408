"""What mounts of several kinds are planned with (pure)."""

from __future__ import annotations

from collections.abc import Sequence

from sampan.errors import InvalidParameter
from sampan.model import oci
from sampan.runtime.mount_options import MountOptions
from sampan.runtime.operation import Operation, Value, operation


def new_filesystem(
    slot: str, kind: str, source: str, options: list[Value], attributes: int
) -> Operation:
    """A detached mount of a new file system; ``options`` are [name, value] pairs."""
    return operation(
        "filesystem", slot=slot, kind=kind, source=source, options=options, attributes=attributes
    )


def attributes(slot: str, options: MountOptions) -> list[Operation]:
    """What its option words change of the mount in ``slot``, and before that of all below it."""
    changes = (
        (True, options.recursive_set, options.recursive_clear),
        (False, options.set_, options.clear),
    )
    return [
        operation("attributes", slot=slot, set_=set_, clear=clear, recursive=recursive)
        for recursive, set_, clear in changes
        if set_ or clear
    ]


def id_map(mappings: Sequence[oci.IDMapping]) -> list[Value]:
    """OCI mappings as rows of /proc/<pid>/uid_map. Raises :class:`InvalidParameter`."""
    rows: list[Value] = []
    for entry in mappings:
        numbers = [entry.get("containerID", 0), entry.get("hostID", 0), entry.get("size", 0)]
        if any(number < 0 for number in numbers) or numbers[2] == 0:
            raise InvalidParameter(f"invalid id mapping {numbers}")
        rows.append(list[Value](numbers))
    return rows
