"""What each limit of config.json is in a cgroup of version 2, read back from the kernel.

It runs in the virtual machine of tools/vm, where all controllers are in one hierarchy.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.errors import InvalidParameter, Unsupported
from sampan.kernel import cgroup
from sampan.kernel.cgroup.convert import weight_from_shares
from sampan.model.oci import Resources

_LAYOUT = cgroup.probe()
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(_LAYOUT.mode != "v2", reason="needs cgroup v2"),
]
_MIB = 1 << 20
_ALLOW: Resources = {"devices": [{"allow": True, "access": "rwm"}]}

#: resources -> (file, what it says then)
WRITTEN: list[tuple[Resources, dict[str, str]]] = [
    ({"cpu": {"idle": 1, "shares": 512}}, {"cpu.idle": "1", "cpu.weight": "0"}),
    ({"cpu": {"idle": 0, "shares": 512}}, {"cpu.weight": str(weight_from_shares(512))}),
    (
        {"cpu": {"quota": 50000, "period": 100000, "burst": 20000}},
        {"cpu.max": "50000 100000", "cpu.max.burst": "20000"},
    ),
    ({"cpu": {"period": 200000}}, {"cpu.max": "max 200000"}),
    ({"cpu": {"cpus": "0", "mems": "0"}}, {"cpuset.cpus": "0", "cpuset.mems": "0"}),
    (
        {"memory": {"limit": 64 * _MIB, "swap": 96 * _MIB, "reservation": 32 * _MIB}},
        {"memory.max": str(64 * _MIB), "memory.low": str(32 * _MIB)},
    ),
    ({"memory": {"limit": -1}}, {"memory.max": "max"}),
    ({"pids": {"limit": 7}}, {"pids.max": "7"}),
    ({"pids": {"limit": -1}}, {"pids.max": "max"}),
    (
        {"hugepageLimits": [{"pageSize": "2MB", "limit": 4 * _MIB}]},
        {"hugetlb.2MB.max": str(4 * _MIB), "hugetlb.2MB.rsvd.max": str(4 * _MIB)},
    ),
    (
        {"unified": {"memory.high": str(48 * _MIB), "memory.min": str(8 * _MIB)}},
        {"memory.high": str(48 * _MIB), "memory.min": str(8 * _MIB)},
    ),
    # The native value is the last word (config-linux.md "unified").
    ({"pids": {"limit": 7}, "unified": {"pids.max": "9"}}, {"pids.max": "9"}),
    ({"unified": {"cgroup.max.descendants": "3"}}, {"cgroup.max.descendants": "3"}),
]
REFUSED: list[tuple[Resources, str]] = [
    ({"network": {"classID": 5}}, "linux.resources.network"),
    ({"memory": {"kernelTCP": 5}}, "linux.resources.memory.kernelTCP"),
    ({"memory": {"swappiness": 5}}, "linux.resources.memory.swappiness"),
    ({"memory": {"disableOOMKiller": True}}, "linux.resources.memory.disableOOMKiller"),
    ({"cpu": {"realtimeRuntime": 5}}, "linux.resources.cpu.realtimeRuntime"),
    ({"blockIO": {"leafWeight": 100}}, "linux.resources.blockIO.leafWeight"),
    ({"unified": {"../x": "1"}}, "linux.resources.unified"),
    ({"unified": {"memory.nothing": "1"}}, "linux.resources.unified.memory.nothing"),
    (
        {"hugepageLimits": [{"pageSize": "3MB", "limit": 1}]},
        "linux.resources.hugepageLimits",
    ),
]
#: What the kernel itself refuses: it is told with the file's name.
IMPOSSIBLE: list[tuple[Resources, str]] = [
    ({"cpu": {"quota": 50000, "period": 100000, "burst": 60000}}, "cpu.max.burst"),
    ({"rdma": {"no-such-device": {"hcaHandles": 1}}}, "rdma.max"),
    ({"unified": {"misc.max": "no-such-resource 1"}}, "misc.max"),
]


@pytest.fixture
def path() -> Iterator[str]:
    parent = f"/sampan-test-{os.getpid()}-v2"
    try:
        yield f"{parent}/box"
    finally:
        cgroup.destroy(_LAYOUT, parent)


def directory(path: str) -> Path:
    (found,) = _LAYOUT.directories(path)
    return Path(found)


@pytest.mark.parametrize(("resources", "files"), WRITTEN)
def test_written(path: str, resources: Resources, files: dict[str, str]) -> None:
    cgroup.create(cgroup.plan(_LAYOUT, path, {**_ALLOW, **resources}))
    assert {name: (directory(path) / name).read_text().strip() for name in files} == files


@pytest.mark.parametrize(("resources", "files"), WRITTEN)
def test_changed(path: str, resources: Resources, files: dict[str, str]) -> None:
    """The same by an update of one that has no limits."""
    cgroup.create(cgroup.plan(_LAYOUT, path, _ALLOW))
    cgroup.apply(cgroup.plan_update(_LAYOUT, path, resources))
    assert {name: (directory(path) / name).read_text().strip() for name in files} == files


@pytest.mark.parametrize(("resources", "field"), REFUSED)
def test_refused_by_name_and_nothing_left(path: str, resources: Resources, field: str) -> None:
    with pytest.raises((Unsupported, InvalidParameter), match=field):
        cgroup.create(cgroup.plan(_LAYOUT, path, {**_ALLOW, **resources}))
    assert not directory(path).exists()


@pytest.mark.parametrize(("resources", "name"), IMPOSSIBLE)
def test_the_kernels_refusal_is_told(path: str, resources: Resources, name: str) -> None:
    with pytest.raises(OSError, match=name) as caught:
        cgroup.create(cgroup.plan(_LAYOUT, path, {**_ALLOW, **resources}))
    assert str(caught.value.filename).endswith(name)
    assert not directory(path).exists()


def test_limits_of_a_disk(path: str, tmp_path: Path) -> None:
    image = tmp_path / "disk"
    image.touch()
    os.truncate(image, 16 * _MIB)
    subprocess.run(["modprobe", "loop"], check=False)
    made = subprocess.run(
        ["losetup", "--find", "--show", str(image)], capture_output=True, text=True, check=False
    )
    if made.returncode:
        pytest.skip(f"no loop device to limit: {made.stderr.strip()}")
    device = made.stdout.strip()
    try:
        number = os.stat(device).st_rdev
        disk = {"major": os.major(number), "minor": os.minor(number)}
        resources: Resources = {
            "blockIO": {
                "throttleReadBpsDevice": [{**disk, "rate": 1 << 20}],
                "throttleWriteBpsDevice": [{**disk, "rate": 2 << 20}],
                "throttleReadIOPSDevice": [{**disk, "rate": 30}],
                "throttleWriteIOPSDevice": [{**disk, "rate": 40}],
            }
        }
        cgroup.create(cgroup.plan(_LAYOUT, path, {**_ALLOW, **resources}))
        told = (directory(path) / "io.max").read_text()
        limits = f"rbps={1 << 20} wbps={2 << 20} riops=30 wiops=40"
        assert told == f"{disk['major']}:{disk['minor']} {limits}\n"
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)
