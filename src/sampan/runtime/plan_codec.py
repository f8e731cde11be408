"""Plans as messages: JSON, with the seccomp program beside it as a blob (pure)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from sampan.kernel.cgroup.systemd import Scope
from sampan.kernel.seccomp import Filter
from sampan.runtime.operation import Operation
from sampan.runtime.planned import Plan

_LISTS = ("join", "uid_map", "gid_map", "time_offsets", "transferred", "limits", "warnings")
_OPERATIONS = ("host", "setup", "finish")
#: A named tuple of a row, without a call of Python code for each of a hundred.
_operation = partial(tuple.__new__, Operation)


def encode(plan: Plan) -> tuple[dict[str, Any], bytes]:
    """(JSON value, blob)."""
    value: dict[str, Any] = {name: getattr(plan, name) for name in (*_LISTS, *_OPERATIONS)}
    value |= {
        "id": plan.container_id,
        "new": plan.new,
        "cgroup": plan.cgroup,
        "scope": plan.scope and [plan.scope.unit, plan.scope.slice, plan.scope.properties],
        "resources": plan.resources,
        "terminal": plan.terminal,
        "affinity": plan.affinity,
        "seccomp": None if plan.seccomp is None else plan.seccomp.flags,
    }
    return value, b"" if plan.seccomp is None else plan.seccomp.program


def decode(value: dict[str, Any], blob: bytes) -> Plan:
    """The plan :func:`encode` was given."""
    flags = value["seccomp"]
    lists: dict[str, Any] = {name: tuple(map(_frozen, value[name])) for name in _LISTS}
    operations: dict[str, Any] = {name: tuple(map(_operation, value[name])) for name in _OPERATIONS}
    return Plan(
        container_id=value["id"],
        new=value["new"],
        cgroup=value["cgroup"],
        scope=_scope(value["scope"], value["cgroup"]),
        resources=value["resources"],
        terminal=value["terminal"],
        affinity=tuple(value["affinity"]),
        seccomp=None if flags is None else Filter(program=blob, flags=flags),
        **lists,
        **operations,
    )


def _scope(value: Any, path: str) -> Scope | None:
    if value is None:
        return None
    unit, slice_name, properties = value
    made = tuple((name, kind, item) for name, kind, item in properties)
    return Scope(unit=unit, slice=slice_name, path=path, properties=made)


def _frozen(row: Any) -> Any:
    return tuple(row) if isinstance(row, list) else row


def joining(plan: Plan, path: str, seccomp: Filter | None) -> Plan:
    """An exec's plan, in a container with this cgroup and filter."""
    return replace(plan, cgroup=path, seccomp=seccomp)
