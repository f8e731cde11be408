"""One step of a plan: a name of the closed table in :mod:`sampan.runtime.operations`, and values.

Operations are JSON: they travel to the process that performs them, are printed by ``--dry-run``
and kept as golden files. *Slots* name descriptors between operations of one plan.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

Value: TypeAlias = "str | int | bool | list[Value] | Mapping[str, Value] | None"


class Operation(NamedTuple):
    """``name`` of the table; ``arguments`` by keyword."""

    name: str
    arguments: Mapping[str, Value]


def operation(name: str, /, **arguments: Value) -> Operation:
    """An :class:`Operation`, spelled like the call it becomes."""
    return Operation(name, arguments)


def describe(step: Operation) -> str:
    """One line for people."""
    values = " ".join(
        f"{key}={value}" for key, value in step.arguments.items() if value not in (None, False, [])
    )
    return f"{step.name} {values}".rstrip()
