"""Control groups: layout of this host, plans, effects, readings.

    layout = probe()                                    # or detect(mountinfo, cgroups, own): pure
    ops = plan(layout, "/sampan/<id>", resources)       # pure; print with describe(op)
    create(ops)                                         # undoes itself on failure
    join_self(layout, path)                             # in the forked, single-threaded child
    ...                                                 # freeze, thaw, stats, plan_update + apply
    kill(layout, path); remove(layout, path)

Importing the package imports nothing outside the standard library, ``sampan.errors`` and
``sampan.model``.
"""

from sampan.kernel.cgroup.devices import DEFAULT_DEVICES
from sampan.kernel.cgroup.layout import Hierarchy, Layout, check_path, detect, own_path, probe
from sampan.kernel.cgroup.members import (
    freeze,
    frozen,
    join,
    join_self,
    kill,
    procs,
    remove,
    signal_all,
    thaw,
)
from sampan.kernel.cgroup.oom import OomWatch, oom_kills, watch_memory_pressure
from sampan.kernel.cgroup.operations import CgroupOp, apply, create, describe
from sampan.kernel.cgroup.plan import plan, plan_update
from sampan.kernel.cgroup.stats import CgroupStats, stats

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
    "detect",
    "freeze",
    "frozen",
    "join",
    "join_self",
    "kill",
    "oom_kills",
    "own_path",
    "plan",
    "plan_update",
    "probe",
    "procs",
    "remove",
    "signal_all",
    "stats",
    "thaw",
    "watch_memory_pressure",
]
