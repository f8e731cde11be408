"""OCI ``linux.resources`` as writes to v1 control files (pure).

Files: Documentation/admin-guide/cgroup-v1/{memory,cpusets,blkio-controller,hugetlb,net_cls,
net_prio,pids,rdma}.rst and scheduler/sched-bwc.rst. ``memory.kernel`` (kernel memory) is accepted
and without effect, as in every runtime since Linux 5.16 made the file inert.
"""

from __future__ import annotations

from sampan.errors import InvalidParameter, Unsupported
from sampan.kernel.cgroup.convert import MAX_SHARES, MIN_SHARES, UNLIMITED
from sampan.kernel.cgroup.layout import Layout
from sampan.kernel.cgroup.operations import CgroupOp, WriteFile, WritePair

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.model.oci import (
        BlockIO,
        CPUResources,
        MemoryResources,
        NetworkResources,
        Resources,
    )

_FIELD = "linux.resources"


def limits(layout: Layout, path: str, resources: Resources) -> list[CgroupOp]:
    """Writes for everything in ``resources`` but device rules. Raises as ``plan.plan``."""
    target = _Target(layout, path)
    ops: list[CgroupOp] = []
    if "cpu" in resources:
        ops += _cpu(target, resources["cpu"])
    if "memory" in resources:
        ops += _memory(target, resources["memory"])
    if "pids" in resources and "limit" in resources["pids"]:
        limit = resources["pids"]["limit"]
        ops.append(
            target.write("pids", "pids.max", "max" if limit < 0 else str(limit), "pids.limit")
        )
    if "blockIO" in resources:
        ops += _block_io(target, resources["blockIO"])
    for entry in resources.get("hugepageLimits", ()):
        name = f"hugetlb.{entry['pageSize']}"
        ops.append(
            target.write(
                "hugetlb",
                f"{name}.rsvd.limit_in_bytes",
                str(entry["limit"]),
                "hugepageLimits",
                f"{name}.limit_in_bytes",
            )
        )
    if "network" in resources:
        ops += _network(target, resources["network"])
    for device, limit_ in resources.get("rdma", {}).items():
        parts = [device]
        for key, name in (("hcaHandles", "hca_handle"), ("hcaObjects", "hca_object")):
            if (value := limit_.get(key)) is not None:
                parts.append(f"{name}={value}")
        ops.append(target.write("rdma", "rdma.max", " ".join(parts), "rdma"))
    if resources.get("unified"):
        raise Unsupported(f"{_FIELD}.unified: needs cgroup v2, this host has cgroup v1")
    return ops


class _Target:
    """Resolves (controller, file) of one cgroup path."""

    def __init__(self, layout: Layout, path: str) -> None:
        self._layout = layout
        self._path = path

    def write(
        self, controller: str, name: str, value: str, field: str, *alternatives: str
    ) -> WriteFile:
        """A write to file ``name`` of ``controller``; Unsupported when it is not mounted."""
        directory = self._layout.directory(controller, self._path)
        if directory is None:
            raise Unsupported(f"{_FIELD}.{field}: the {controller} cgroup controller is missing")
        return WriteFile(
            path=f"{directory}/{name}",
            value=value,
            field=f"{_FIELD}.{field}",
            alternatives=tuple((f"{directory}/{other}", value) for other in alternatives),
        )


def _cpu(target: _Target, cpu: CPUResources) -> list[CgroupOp]:
    ops: list[CgroupOp] = []
    shares = cpu.get("shares")
    if shares:
        if shares < MIN_SHARES:
            raise InvalidParameter(f"the minimum allowed cpu-shares is {MIN_SHARES}")
        if shares > MAX_SHARES:
            raise InvalidParameter(f"the maximum allowed cpu-shares is {MAX_SHARES}")
        ops.append(target.write("cpu", "cpu.shares", str(shares), "cpu.shares"))
    # Real-time budgets come before any task of that class can enter.
    rt_period, rt_runtime = cpu.get("realtimePeriod"), cpu.get("realtimeRuntime")
    _pair(
        ops,
        rt_period and target.write("cpu", "cpu.rt_period_us", str(rt_period), "cpu.realtimePeriod"),
        rt_runtime
        and target.write("cpu", "cpu.rt_runtime_us", str(rt_runtime), "cpu.realtimeRuntime"),
    )
    period, quota = cpu.get("period"), cpu.get("quota")
    if quota is not None and quota < 0:
        quota = UNLIMITED
    _pair(
        ops,
        period and target.write("cpu", "cpu.cfs_period_us", str(period), "cpu.period"),
        quota and target.write("cpu", "cpu.cfs_quota_us", str(quota), "cpu.quota"),
    )
    if (burst := cpu.get("burst")) is not None:
        ops.append(target.write("cpu", "cpu.cfs_burst_us", str(burst), "cpu.burst"))
    if (idle := cpu.get("idle")) is not None:
        ops.append(target.write("cpu", "cpu.idle", str(idle), "cpu.idle"))
    if cpus := cpu.get("cpus"):
        ops.append(target.write("cpuset", "cpuset.cpus", cpus, "cpu.cpus"))
    if mems := cpu.get("mems"):
        ops.append(target.write("cpuset", "cpuset.mems", mems, "cpu.mems"))
    return ops


def _pair(
    ops: list[CgroupOp], first: WriteFile | int | None, second: WriteFile | int | None
) -> None:
    if isinstance(first, WriteFile) and isinstance(second, WriteFile):
        ops.append(WritePair(first=first, second=second))
    else:
        ops += [op for op in (first, second) if isinstance(op, WriteFile)]


def _memory(target: _Target, memory: MemoryResources) -> list[CgroupOp]:
    ops: list[CgroupOp] = []
    limit, swap = memory.get("limit") or 0, memory.get("swap") or 0
    if limit == UNLIMITED and swap == 0:
        # memsw may not stay below an unlimited memory limit.
        swap = UNLIMITED
    if limit > 0 and 0 < swap < limit:
        raise InvalidParameter(
            f"{_FIELD}.memory.swap: memory+swap limit must not be below the memory limit"
        )
    if swap > 0 and limit == UNLIMITED:
        raise InvalidParameter(f"{_FIELD}.memory.swap: needs a memory limit beside it")
    _pair(
        ops,
        limit and target.write("memory", "memory.limit_in_bytes", str(limit), "memory.limit"),
        swap and target.write("memory", "memory.memsw.limit_in_bytes", str(swap), "memory.swap"),
    )
    if reservation := memory.get("reservation"):
        ops.append(
            target.write(
                "memory", "memory.soft_limit_in_bytes", str(reservation), "memory.reservation"
            )
        )
    if tcp := memory.get("kernelTCP"):
        ops.append(
            target.write("memory", "memory.kmem.tcp.limit_in_bytes", str(tcp), "memory.kernelTCP")
        )
    if (swappiness := memory.get("swappiness")) is not None and swappiness != -1:
        if not 0 <= swappiness <= 100:
            raise InvalidParameter(
                f"{_FIELD}.memory.swappiness: {swappiness} is not between 0 and 100"
            )
        ops.append(
            target.write("memory", "memory.swappiness", str(swappiness), "memory.swappiness")
        )
    if memory.get("disableOOMKiller"):
        ops.append(target.write("memory", "memory.oom_control", "1", "memory.disableOOMKiller"))
    if memory.get("useHierarchy") is False:
        raise Unsupported(f"{_FIELD}.memory.useHierarchy: always true since Linux 5.11")
    return ops


def _block_io(target: _Target, block_io: BlockIO) -> list[CgroupOp]:
    ops: list[CgroupOp] = []
    if weight := block_io.get("weight"):
        ops.append(
            target.write("blkio", "blkio.weight", str(weight), "blockIO.weight", "blkio.bfq.weight")
        )
    if leaf := block_io.get("leafWeight"):
        ops.append(target.write("blkio", "blkio.leaf_weight", str(leaf), "blockIO.leafWeight"))
    for device in block_io.get("weightDevice", ()):
        number = f"{device['major']}:{device['minor']}"
        if weight := device.get("weight"):
            ops.append(
                target.write(
                    "blkio",
                    "blkio.weight_device",
                    f"{number} {weight}",
                    "blockIO.weightDevice",
                    "blkio.bfq.weight_device",
                )
            )
        if leaf := device.get("leafWeight"):
            ops.append(
                target.write(
                    "blkio",
                    "blkio.leaf_weight_device",
                    f"{number} {leaf}",
                    "blockIO.weightDevice.leafWeight",
                )
            )
    return ops + _throttles(target, block_io)


def _throttles(target: _Target, block_io: BlockIO) -> list[CgroupOp]:
    limits = (
        ("read_bps", "throttleReadBpsDevice", block_io.get("throttleReadBpsDevice")),
        ("write_bps", "throttleWriteBpsDevice", block_io.get("throttleWriteBpsDevice")),
        ("read_iops", "throttleReadIOPSDevice", block_io.get("throttleReadIOPSDevice")),
        ("write_iops", "throttleWriteIOPSDevice", block_io.get("throttleWriteIOPSDevice")),
    )
    return [
        target.write(
            "blkio",
            f"blkio.throttle.{what}_device",
            f"{entry['major']}:{entry['minor']} {entry.get('rate', 0)}",
            f"blockIO.{field}",
        )
        for what, field, entries in limits
        for entry in entries or ()
    ]


def _network(target: _Target, network: NetworkResources) -> list[CgroupOp]:
    ops: list[CgroupOp] = []
    if class_id := network.get("classID"):
        ops.append(target.write("net_cls", "net_cls.classid", str(class_id), "network.classID"))
    ops += [
        target.write(
            "net_prio",
            "net_prio.ifpriomap",
            f"{entry['name']} {entry['priority']}",
            "network.priorities",
        )
        for entry in network.get("priorities") or ()
    ]
    return ops
