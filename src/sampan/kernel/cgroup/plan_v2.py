"""OCI ``linux.resources`` as writes to v2 control files (pure).

Files and conversions: Documentation/admin-guide/cgroup-v2.rst and ``convert.py``. What v2 has no
counterpart for is refused by name when it asks for something (real-time budgets, swappiness,
net_cls, disabling the OOM killer); ``memory.kernel`` is accepted and without effect, as on v1.
"""

from __future__ import annotations

import re

from sampan.errors import InvalidParameter, Unsupported
from sampan.kernel.cgroup.convert import (
    MAX_SHARES,
    MIN_SHARES,
    UNLIMITED,
    amount,
    io_weight,
    swap_max,
    weight_from_shares,
)
from sampan.kernel.cgroup.layout import Layout
from sampan.kernel.cgroup.operations import CgroupOp, CheckMemoryUsage, WriteFile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.model.oci import BlockIO, CPUResources, MemoryResources, Resources

_FIELD = "linux.resources"
_CONTROL_FILE = re.compile(r"[a-z0-9_]+\.[A-Za-z0-9_.]+")


def limits(layout: Layout, path: str, resources: Resources) -> list[CgroupOp]:
    """Writes for everything in ``resources`` but device rules. Raises as ``plan.plan``."""
    assert layout.unified is not None
    directory = layout.unified.directory(path)
    ops: list[CgroupOp] = []
    if "cpu" in resources:
        ops += _cpu(directory, resources["cpu"])
    if "memory" in resources:
        ops += _memory(directory, resources["memory"])
    if "pids" in resources and "limit" in resources["pids"]:
        limit = resources["pids"]["limit"]
        ops.append(_write(directory, "pids.max", amount(max(limit, UNLIMITED)), "pids.limit"))
    if "blockIO" in resources:
        ops += _block_io(directory, resources["blockIO"])
    for entry in resources.get("hugepageLimits", ()):
        name, value = f"hugetlb.{entry['pageSize']}", str(entry["limit"])
        ops.append(_write(directory, f"{name}.max", value, "hugepageLimits"))
        ops.append(_write(directory, f"{name}.rsvd.max", value, "hugepageLimits", optional=True))
    network = resources.get("network", {})
    if network.get("classID") or network.get("priorities"):
        raise Unsupported(f"{_FIELD}.network: cgroup v2 has no net_cls and net_prio controllers")
    for device, entry_ in resources.get("rdma", {}).items():
        parts = [device]
        for key, name in (("hcaHandles", "hca_handle"), ("hcaObjects", "hca_object")):
            if (count := entry_.get(key)) is not None:
                parts.append(f"{name}={count}")
        ops.append(_write(directory, "rdma.max", " ".join(parts), "rdma"))
    # Last, so that the native value wins over the converted one (config-linux.md, "unified").
    for name, value in resources.get("unified", {}).items():
        if not _CONTROL_FILE.fullmatch(name):
            raise InvalidParameter(f"{_FIELD}.unified: {name!r} is not a cgroup control file")
        ops += [
            _write(directory, name, line, f"unified.{name}")
            for line in value.splitlines() or [value]
        ]
    return ops


def _write(directory: str, name: str, value: str, field: str, optional: bool = False) -> WriteFile:
    return WriteFile(
        path=f"{directory}/{name}",
        value=value,
        field=f"{_FIELD}.{field}",
        optional=optional,
    )


def _cpu(directory: str, cpu: CPUResources) -> list[CgroupOp]:
    ops: list[CgroupOp] = []
    if cpu.get("realtimePeriod") or cpu.get("realtimeRuntime"):
        raise Unsupported(f"{_FIELD}.cpu.realtimeRuntime: cgroup v2 has no real-time budgets")
    # Idle first: an idle cgroup takes no weight.
    if (idle := cpu.get("idle")) is not None:
        ops.append(_write(directory, "cpu.idle", str(idle), "cpu.idle"))
    shares = cpu.get("shares")
    if shares and cpu.get("idle") != 1:
        if shares < MIN_SHARES:
            raise InvalidParameter(f"the minimum allowed cpu-shares is {MIN_SHARES}")
        if shares > MAX_SHARES:
            raise InvalidParameter(f"the maximum allowed cpu-shares is {MAX_SHARES}")
        ops.append(_write(directory, "cpu.weight", str(weight_from_shares(shares)), "cpu.shares"))
    quota, period, burst = cpu.get("quota"), cpu.get("period"), cpu.get("burst")
    if quota or period:
        # The file keeps the period when only the quota is written; the reverse does not exist.
        value = str(quota) if quota and quota > 0 else "max"
        ops.append(
            _write(directory, "cpu.max", f"{value} {period}" if period else value, "cpu.quota")
        )
    if burst is not None:
        ops.append(_write(directory, "cpu.max.burst", str(burst), "cpu.burst"))
    if cpus := cpu.get("cpus"):
        ops.append(_write(directory, "cpuset.cpus", cpus, "cpu.cpus"))
    if mems := cpu.get("mems"):
        ops.append(_write(directory, "cpuset.mems", mems, "cpu.mems"))
    return ops


def _memory(directory: str, memory: MemoryResources) -> list[CgroupOp]:
    ops: list[CgroupOp] = []
    if memory.get("disableOOMKiller"):
        raise Unsupported(f"{_FIELD}.memory.disableOOMKiller: cgroup v2 cannot")
    if memory.get("kernelTCP"):
        raise Unsupported(f"{_FIELD}.memory.kernelTCP: cgroup v2 has no limit of its own for it")
    if memory.get("swappiness") not in (None, -1):
        raise Unsupported(f"{_FIELD}.memory.swappiness: cgroup v2 has none per cgroup")
    if memory.get("useHierarchy") is False:
        raise Unsupported(f"{_FIELD}.memory.useHierarchy: always true on cgroup v2")
    limit = memory.get("limit") or None
    swap = swap_max(limit, memory.get("swap") or 0)
    if limit is not None and limit > 0 and memory.get("checkBeforeUpdate"):
        ops.append(CheckMemoryUsage(path=directory, limit=limit))
    if swap is not None:
        # Kernels without swap accounting have no such file and nothing to limit either.
        ops.append(
            _write(
                directory,
                "memory.swap.max",
                amount(swap),
                "memory.swap",
                optional=swap in (0, UNLIMITED),
            )
        )
    if limit is not None:
        ops.append(_write(directory, "memory.max", amount(limit), "memory.limit"))
    if reservation := memory.get("reservation"):
        ops.append(_write(directory, "memory.low", amount(reservation), "memory.reservation"))
    return ops


def _block_io(directory: str, block_io: BlockIO) -> list[CgroupOp]:
    ops: list[CgroupOp] = []
    if block_io.get("leafWeight"):
        raise Unsupported(f"{_FIELD}.blockIO.leafWeight: cgroup v2 has no leaf weight")
    if weight := block_io.get("weight"):
        ops.append(_weight(directory, "", weight, "blockIO.weight"))
    for device in block_io.get("weightDevice", ()):
        if device.get("leafWeight"):
            raise Unsupported(f"{_FIELD}.blockIO.weightDevice.leafWeight: not on cgroup v2")
        if weight := device.get("weight"):
            number = f"{device['major']}:{device['minor']}"
            ops.append(_weight(directory, number, weight, "blockIO.weightDevice"))
    throttles = (
        ("rbps", "throttleReadBpsDevice", block_io.get("throttleReadBpsDevice")),
        ("wbps", "throttleWriteBpsDevice", block_io.get("throttleWriteBpsDevice")),
        ("riops", "throttleReadIOPSDevice", block_io.get("throttleReadIOPSDevice")),
        ("wiops", "throttleWriteIOPSDevice", block_io.get("throttleWriteIOPSDevice")),
    )
    for key, field, entries in throttles:
        for entry in entries or ():
            rate = entry.get("rate") or "max"
            value = f"{entry['major']}:{entry['minor']} {key}={rate}"
            ops.append(_write(directory, "io.max", value, f"blockIO.{field}"))
    return ops


def _weight(directory: str, device: str, weight: int, field: str) -> CgroupOp:
    """BFQ takes the v1 range as it is and is what schedules the disk when its file exists."""
    prefix = device or "default"
    return WriteFile(
        path=f"{directory}/io.bfq.weight",
        value=f"{prefix} {weight}",
        field=f"{_FIELD}.{field}",
        alternatives=((f"{directory}/io.weight", f"{prefix} {io_weight(weight)}"),),
    )
