"""OCI linux.resources to operations, on v1 and on v2."""

from __future__ import annotations

import re

import pytest
from tests.unit.kernel.test_cgroup_layout import V2

from sampan.errors import InvalidParameter, Unsupported
from sampan.kernel.cgroup import Layout, describe, detect, plan, plan_update
from sampan.kernel.cgroup.convert import io_weight, swap_max, weight_from_shares
from sampan.model.oci import Resources

NAMES = ("cpu", "cpuset", "memory", "devices", "blkio", "pids", "hugetlb", "net_cls", "net_prio")
CGROUPS = "".join(f"{name}\t1\t1\t1\n" for name in (*NAMES, "rdma"))
V1 = detect(
    "".join(f"1 1 0:1 / /c/{name} rw - cgroup cgroup rw,{name}\n" for name in NAMES), CGROUPS
)
UNIFIED = detect(V2, CGROUPS)

EVERYTHING: Resources = {
    "memory": {"limit": 1 << 20, "swap": 1 << 21, "reservation": 4096},
    "cpu": {
        "shares": 1024,
        "quota": 50000,
        "period": 100000,
        "burst": 10,
        "cpus": "0-1",
        "mems": "0",
    },
    "pids": {"limit": -1},
    "hugepageLimits": [{"pageSize": "2MB", "limit": 4096}],
    "blockIO": {
        "weight": 10,
        "weightDevice": [{"major": 8, "minor": 0, "weight": 1000}],
        "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 600}],
        "throttleWriteIOPSDevice": [{"major": 8, "minor": 16, "rate": 300}],
    },
}


def writes(layout: Layout, resources: Resources) -> list[str]:
    """The plan_update of ``resources`` as "file value", directories left out."""
    lines = [describe(op) for op in plan_update(layout, "/p/x", resources)]
    return [re.sub(r"\S+/p/x/", "", line).replace("write ", "") for line in lines]


def test_v1_limits() -> None:
    assert writes(V1, EVERYTHING) == [
        "cpu.shares '1024'",
        "cpu.cfs_period_us '100000' <-> cpu.cfs_quota_us '50000'",
        "cpu.cfs_burst_us '10'",
        "cpuset.cpus '0-1'",
        "cpuset.mems '0'",
        "memory.limit_in_bytes '1048576' <-> memory.memsw.limit_in_bytes '2097152'",
        "memory.soft_limit_in_bytes '4096'",
        "pids.max 'max'",
        "blkio.weight '10' | blkio.bfq.weight '10'",
        "blkio.weight_device '8:0 1000' | blkio.bfq.weight_device '8:0 1000'",
        "blkio.throttle.read_bps_device '8:0 600'",
        "blkio.throttle.write_iops_device '8:16 300'",
        "hugetlb.2MB.rsvd.limit_in_bytes '4096' | hugetlb.2MB.limit_in_bytes '4096'",
    ]


def test_v2_limits() -> None:
    assert writes(UNIFIED, EVERYTHING) == [
        "cpu.weight '100'",
        "cpu.max '50000 100000'",
        "cpu.max.burst '10'",
        "cpuset.cpus '0-1'",
        "cpuset.mems '0'",
        "memory.swap.max '1048576'",
        "memory.max '1048576'",
        "memory.low '4096'",
        "pids.max 'max'",
        "io.bfq.weight 'default 10' | io.weight 'default 1'",
        "io.bfq.weight '8:0 1000' | io.weight '8:0 10000'",
        "io.max '8:0 rbps=600'",
        "io.max '8:16 wiops=300'",
        "hugetlb.2MB.max '4096'",
        "hugetlb.2MB.rsvd.max '4096' (optional)",
    ]


def test_v1_rarer_fields() -> None:
    resources: Resources = {
        "memory": {"limit": -1, "kernel": 5, "kernelTCP": 6, "swappiness": 0},
        "cpu": {"realtimeRuntime": 950, "realtimePeriod": 1000, "idle": 1, "quota": -7},
        "network": {"classID": 7, "priorities": [{"name": "eth0", "priority": 3}]},
        "pids": {"limit": 0},
    }
    assert writes(V1, resources) == [
        "cpu.rt_period_us '1000' <-> cpu.rt_runtime_us '950'",
        "cpu.cfs_quota_us '-1'",
        "cpu.idle '1'",
        "memory.limit_in_bytes '-1' <-> memory.memsw.limit_in_bytes '-1'",
        "memory.kmem.tcp.limit_in_bytes '6'",
        "memory.swappiness '0'",
        "pids.max '0'",
        "net_cls.classid '7'",
        "net_prio.ifpriomap 'eth0 3'",
    ]


def test_v2_rarer_fields() -> None:
    resources: Resources = {
        "memory": {"limit": 4096, "swap": -1, "checkBeforeUpdate": True},
        "cpu": {"idle": 1, "shares": 5, "period": 1000},
        "rdma": {"mlx": {"hcaHandles": 1, "hcaObjects": 0}},
        "unified": {"memory.high": "1\n", "io.max": "8:0 rbps=1\n8:1 wbps=2"},
    }
    assert writes(UNIFIED, resources) == [
        "cpu.idle '1'",
        "cpu.max 'max 1000'",
        "check-usage memory.current <= 4096",
        "memory.swap.max 'max' (optional)",
        "memory.max '4096'",
        "rdma.max 'mlx hca_handle=1 hca_object=0'",
        "memory.high '1'",
        "io.max '8:0 rbps=1'",
        "io.max '8:1 wbps=2'",
    ]


@pytest.mark.parametrize(
    ("layout", "resources", "error", "message"),
    [
        (V1, {"cpu": {"shares": 1}}, InvalidParameter, "minimum allowed cpu-shares is 2"),
        (UNIFIED, {"cpu": {"shares": 300000}}, InvalidParameter, "maximum allowed"),
        (V1, {"memory": {"limit": 10, "swap": 5}}, InvalidParameter, "below the memory limit"),
        (UNIFIED, {"memory": {"limit": 10, "swap": 5}}, InvalidParameter, "below"),
        (UNIFIED, {"memory": {"swap": 5}}, InvalidParameter, "needs a memory limit"),
        (V1, {"memory": {"swappiness": 101}}, InvalidParameter, "swappiness"),
        (V1, {"memory": {"useHierarchy": False}}, Unsupported, "useHierarchy"),
        (V1, {"unified": {"a.b": "1"}}, Unsupported, "unified: needs cgroup v2"),
        (V1, {"rdma": {"x": {"hcaHandles": 1}}}, Unsupported, "rdma cgroup controller"),
        (UNIFIED, {"unified": {"../x.y": "1"}}, InvalidParameter, "not a cgroup control file"),
        (UNIFIED, {"unified": {"x": "1"}}, InvalidParameter, "not a cgroup control file"),
        (UNIFIED, {"cpu": {"realtimeRuntime": 1}}, Unsupported, "real-time"),
        (UNIFIED, {"memory": {"disableOOMKiller": True}}, Unsupported, "disableOOMKiller"),
        (UNIFIED, {"memory": {"swappiness": 5}}, Unsupported, "swappiness"),
        (UNIFIED, {"memory": {"kernelTCP": 5}}, Unsupported, "kernelTCP"),
        (UNIFIED, {"network": {"classID": 5}}, Unsupported, "network"),
        (UNIFIED, {"blockIO": {"leafWeight": 5}}, Unsupported, "leafWeight"),
        (V1, {"devices": [{"allow": True, "type": "x"}]}, InvalidParameter, "device type 'x'"),
        (V1, {"devices": [{"allow": True, "access": "z"}]}, InvalidParameter, "invalid access"),
        (V1, {"devices": [{"allow": True, "major": -2}]}, InvalidParameter, "invalid major"),
    ],
)
def test_refused_by_name(
    layout: Layout, resources: Resources, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        plan(layout, "/p/x", resources)


def test_creation_makes_every_directory_before_limits_and_denies_devices() -> None:
    lines = [describe(op) for op in plan(V1, "/p/x", {"pids": {"limit": 3}}, devices=())]
    kinds = [line.split()[0] for line in lines]
    assert kinds == ["mkdir", "mkdir", "inherit-cpuset", *["mkdir"] * 7, "write", "write"]
    assert lines[-1] == "write /c/devices/p/x/devices.deny 'a'"


def test_v2_creation_delegates_then_limits_then_filters_devices() -> None:
    lines = [describe(op) for op in plan(UNIFIED, "/p/x", {"pids": {"limit": 3}})]
    assert lines[0] == "mkdir /sys/fs/cgroup/p/x"
    assert lines[1].startswith("enable cpu cpuset hugetlb io memory pids rdma down to")
    assert lines[2] == "write /sys/fs/cgroup/p/x/pids.max '3'"
    assert lines[3].startswith("attach-device-filter")


def test_privileged_means_everything_allowed() -> None:
    rules: Resources = {"devices": [{"allow": True, "access": "rwm"}]}
    assert describe(plan(V1, "/p/x", rules)[-1]) == "write /c/devices/p/x/devices.allow 'a'"
    assert not any("filter" in describe(op) for op in plan(UNIFIED, "/p/x", rules))


def test_conversions() -> None:
    assert [weight_from_shares(n) for n in (2, 1024, 262144)] == [1, 100, 10000]
    assert [io_weight(n) for n in (10, 1000)] == [1, 10000]
    assert [swap_max(10, n) for n in (-1, 0, 10, 30)] == [-1, None, 0, 20]
    assert swap_max(-1, 0) == -1
