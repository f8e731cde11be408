"""A plan: everything that will be done to make one process, as values.

Namespaces to be made or joined, and three flat lists of operations from the closed table of
:mod:`sampan.runtime.operations`:

``host``    by the runtime's side, once init exists (it has the host's privileges, init may not);
``setup``   by init: mounts, pivot_root, ...; ends where init waits to be started;
``finish``  by init after that: identity, capabilities, filter; ends with execve(2).

Whoever performs a plan needs this and not the planner, which is several times as large.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from sampan.kernel import namespaces
from sampan.runtime.operation import Operation, describe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.kernel.cgroup.systemd import Scope
    from sampan.kernel.seccomp import Filter
    from sampan.model import oci
    from sampan.runtime import rdt


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What it takes to make one process; see the module's docstring.

    ``new``: CLONE_NEW* flags; ``join``: (flag, path of a namespace file). ``uid_map``,
    ``gid_map``: rows of (inside, outside, count) for a new user namespace. ``time_offsets``:
    lines of /proc/<pid>/timens_offsets. ``transferred``: slots the host side hands to init.
    ``limits``: (RLIMIT_* number, soft, hard), set by the runtime's side just before the start.
    ``cgroup``: its path, "" for none; ``scope``: the unit it is made as, if systemd makes it;
    ``below``: (mount point of a version 1 hierarchy, path of the cgroup to join there instead);
    ``resources`` as in the spec. ``resctrl``: its group there, if the spec asks for one.
    ``affinity``: CPUs to be on until the cgroup is joined, for exec.
    """

    container_id: str
    new: int
    join: tuple[tuple[int, str], ...] = ()
    uid_map: tuple[tuple[int, int, int], ...] = ()
    gid_map: tuple[tuple[int, int, int], ...] = ()
    time_offsets: tuple[str, ...] = ()
    host: tuple[Operation, ...] = ()
    transferred: tuple[str, ...] = ()
    setup: tuple[Operation, ...] = ()
    finish: tuple[Operation, ...] = ()
    limits: tuple[tuple[int, int, int], ...] = ()
    cgroup: str = ""
    below: tuple[tuple[str, str], ...] = ()
    scope: Scope | None = None
    resources: oci.Resources | None = None
    resctrl: rdt.Group | None = None
    seccomp: Filter | None = None
    terminal: bool = False
    affinity: tuple[int, ...] = ()
    warnings: tuple[str, ...] = ()

    def describe(self) -> str:
        """The plan as text, for ``--dry-run`` and golden files."""
        lines = [f"namespaces new: {' '.join(_names(self.new)) or 'none'}"]
        lines += [f"namespace join: {_names(flag)[0]} {path}" for flag, path in self.join]
        lines += [f"uid_map {' '.join(map(str, row))}" for row in self.uid_map]
        lines += [f"gid_map {' '.join(map(str, row))}" for row in self.gid_map]
        lines += [f"timens_offsets {line}" for line in self.time_offsets]
        if self.scope:
            lines.append(f"systemd {self.scope.unit} in {self.scope.slice}")
            lines += [f"systemd: {name}={value!r}" for name, _, value in self.scope.properties]
        if self.cgroup:
            lines.append(f"cgroup {self.cgroup} {json.dumps(self.resources or {})}")
        if self.resctrl:
            lines.append(f"resctrl {self.resctrl}")
        for title, steps in (("host", self.host), ("setup", self.setup), ("finish", self.finish)):
            lines += [f"{title}: {describe(step)}" for step in steps]
        lines += [f"limit {number} {soft} {hard}" for number, soft, hard in self.limits]
        lines += [f"warning: {text}" for text in self.warnings]
        return "\n".join(lines) + "\n"


def _names(flags: int) -> list[str]:
    return [name for name, flag in namespaces.FLAGS.items() if flags & flag]
