"""Control groups: layout of this host, plans, effects, readings.

    layout = probe()                                    # or detect(mountinfo, cgroups, own): pure
    ops = plan(layout, "/sampan/<id>", resources)       # pure; print with describe(op)
    create(ops)                                         # undoes itself on failure
    join_self(layout, path)                             # in the forked, single-threaded child
    ...                                                 # freeze, thaw, stats, plan_update + apply
    destroy(layout, path)                               # kill and remove

Importing the package imports nothing outside the standard library, ``sampan.errors`` and
``sampan.model``. ``stats`` is imported when first asked for: who starts containers never does.
"""

from __future__ import annotations

from sampan.kernel.cgroup.devices import DEFAULT_DEVICES
from sampan.kernel.cgroup.layout import Hierarchy, Layout, check_path, detect, own_path, probe
from sampan.kernel.cgroup.members import (
    destroy,
    freeze,
    frozen,
    has_room,
    join,
    join_self,
    kill,
    may_create,
    procs,
    remove,
    remove_empty,
    signal_all,
    thaw,
    with_room,
)
from sampan.kernel.cgroup.oom import OomWatch, oom_kills, watch_memory_pressure
from sampan.kernel.cgroup.operations import CgroupOp, apply, create, describe
from sampan.kernel.cgroup.plan import plan, plan_update

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.kernel.cgroup.usage import CgroupStats, stats

__all__ = [
    "DEFAULT_DEVICES",
    "CgroupOp",
    "CgroupStats",
    "Hierarchy",
    "Layout",
    "OomWatch",
    "apply",
    "check_path",
    "create",
    "describe",
    "destroy",
    "detect",
    "freeze",
    "frozen",
    "has_room",
    "join",
    "join_self",
    "kill",
    "may_create",
    "oom_kills",
    "own_path",
    "plan",
    "plan_update",
    "probe",
    "procs",
    "remove",
    "remove_empty",
    "signal_all",
    "stats",
    "thaw",
    "watch_memory_pressure",
    "with_room",
]


def __getattr__(name: str) -> object:
    """PEP 562."""
    if name not in ("CgroupStats", "stats"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from sampan.kernel.cgroup import usage

    return getattr(usage, name)
