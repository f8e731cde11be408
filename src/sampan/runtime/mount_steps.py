"""Operations that mounts of several kinds are made of (pure)."""

from __future__ import annotations

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
