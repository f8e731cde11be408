"""From OCI ``linux.resources`` to the operations that make a container's cgroups (pure).

``plan`` gives what a new container needs: directories first, then limits. ``plan_update`` gives
only the writes, for a running one. Both refuse by name what a hierarchy cannot express.
"""

from __future__ import annotations

from collections.abc import Iterable

from sampan.kernel.cgroup import plan_v1, plan_v2
from sampan.kernel.cgroup.device_filter import compile_policy
from sampan.kernel.cgroup.devices import DEFAULT_DEVICES, policy
from sampan.kernel.cgroup.layout import Layout, check_path
from sampan.kernel.cgroup.operations import (
    AttachDeviceFilter,
    CgroupOp,
    EnableControllers,
    InheritCpuset,
    MakeDirectory,
    WriteFile,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.model.oci import DeviceRule, Resources


def plan(
    layout: Layout,
    path: str,
    resources: Resources,
    devices: Iterable[DeviceRule] = DEFAULT_DEVICES,
) -> tuple[CgroupOp, ...]:
    """Operations that create cgroup ``path`` in every hierarchy and set ``resources``.

    Device access starts from "deny all"; ``resources["devices"]`` and then ``devices`` are played
    on top, as runc does, so a container without rules gets the harmless devices and no others.
    None of them: they are what they are above, as it takes the host's root to change that.
    Raises InvalidParameter (bad value) or Unsupported (the layout cannot do it).
    """
    path = check_path(path)
    ops: list[CgroupOp] = []
    if layout.mode == "v2":
        assert layout.unified is not None
        directory = layout.unified.directory(path)
        ops.append(MakeDirectory(path=directory))
        ops.append(
            EnableControllers(
                mountpoint=layout.unified.mountpoint,
                path=directory,
                controllers=tuple(sorted(layout.unified.controllers)),
            )
        )
    else:
        for hierarchy in layout.legacy:
            directory = hierarchy.directory(path)
            ops.append(MakeDirectory(path=directory))
            if "cpuset" in hierarchy.controllers:
                ops.append(InheritCpuset(mountpoint=hierarchy.mountpoint, path=directory))
    ops += _limits(layout, path, resources)
    ops += _devices(layout, path, resources, devices)
    return tuple(ops)


def plan_update(layout: Layout, path: str, resources: Resources) -> tuple[CgroupOp, ...]:
    """Operations that change the limits of the existing cgroup ``path``.

    Device rules in ``resources`` replace those in force. Raises as ``plan``.
    """
    path = check_path(path)
    ops = _limits(layout, path, resources)
    if "devices" in resources:
        ops += _devices(layout, path, resources, DEFAULT_DEVICES)
    return tuple(ops)


def _limits(layout: Layout, path: str, resources: Resources) -> list[CgroupOp]:
    if layout.mode == "v2":
        return plan_v2.limits(layout, path, resources)
    return plan_v1.limits(layout, path, resources)


def _devices(
    layout: Layout,
    path: str,
    resources: Resources,
    defaults: Iterable[DeviceRule],
) -> list[CgroupOp]:
    rules = resources.get("devices", ())
    if rules is None:
        return []
    wanted = policy([*rules, *defaults])
    if layout.mode == "v2":
        assert layout.unified is not None
        if wanted.allow_by_default and not wanted.exceptions:
            return []
        return [
            AttachDeviceFilter(path=layout.unified.directory(path), program=compile_policy(wanted))
        ]
    directory = layout.directory("devices", path)
    if directory is None:
        return []
    field = "linux.resources.devices"
    first, then = ("allow", "deny") if wanted.allow_by_default else ("deny", "allow")
    ops: list[CgroupOp] = [WriteFile(path=f"{directory}/devices.{first}", value="a", field=field)]
    ops += [
        WriteFile(path=f"{directory}/devices.{then}", value=exception.line(), field=field)
        for exception in wanted.exceptions
    ]
    return ops
