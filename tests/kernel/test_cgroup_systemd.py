"""sampan-runtime --systemd-cgroup, where systemd is PID 1: in the virtual machine of tools/vm."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sampan.kernel import cgroup
from sampan.kernel.cgroup import systemd
from tests.kernel.oci.conftest import PROGRAM, Runtime, rootfs, runtime

__all__ = ["rootfs", "runtime"]
pytestmark = pytest.mark.skipif(
    not Path(systemd.BOOTED).is_dir(), reason="this machine is not run by systemd (make test-vm)"
)

SLICE = "sampantest-box.slice"
LIMITS = {
    "memory": {"limit": 64 << 20, "swap": 64 << 20, "reservation": 32 << 20},
    "cpu": {"shares": 512, "quota": 50000, "period": 100000, "cpus": "0", "mems": "0"},
    "pids": {"limit": 20},
    "devices": [{"allow": False, "access": "rwm"}],
}


class Scopes:
    """sampan-runtime with --systemd-cgroup, and what systemd says of the scopes it makes."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.layout = cgroup.probe()

    def create(self, name: str, *args: str, **changes: Any) -> subprocess.CompletedProcess[str]:
        """Create ``name`` with its output in a file, which init keeps open."""
        changes.setdefault("cgroupsPath", f"{SLICE}:box:{name}")
        self.runtime.config(name, *args, **changes)
        output = self.runtime.bundle / f"{name}.out"
        command = [str(PROGRAM), "--root", str(self.runtime.root), "--systemd-cgroup", "create"]
        with output.open("w") as file:
            return subprocess.run(
                [*command, "--bundle", str(self.runtime.bundle), name],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                check=False,
            )

    def output(self, name: str) -> str:
        return (self.runtime.bundle / f"{name}.out").read_text()

    def show(self, name: str, *properties: str) -> dict[str, str]:
        """Properties of the scope as systemctl shows them."""
        text = subprocess.run(
            ["systemctl", "show", f"box-{name}.scope", f"--property={','.join(properties)}"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        return dict(line.split("=", 1) for line in text.splitlines())

    def gone(self, name: str) -> bool:
        path = f"/sampantest.slice/{SLICE}/box-{name}.scope"
        left = [found for found in self.layout.directories(path) if Path(found).exists()]
        return self.show(name, "LoadState") == {"LoadState": "not-found"} and not left


@pytest.fixture
def scopes(runtime: Runtime) -> Iterator[Scopes]:
    yield Scopes(runtime)
    for name in runtime.ids:
        runtime("delete", "--force", name)
    subprocess.run(["systemctl", "stop", "sampantest.slice"], check=False)


def test_annotations_are_properties_of_the_scope(scopes: Scopes) -> None:
    prefix = "org.systemd.property."
    wanted = {f"{prefix}TimeoutStopSec": "123", f"{prefix}CollectMode": "'inactive'"}
    result = scopes.create("c", "sleep", "100", annotations=wanted)
    assert result.returncode == 0, scopes.output("c")
    found = scopes.show("c", "TimeoutStopUSec", "CollectMode")
    assert found == {"TimeoutStopUSec": "2min 3s", "CollectMode": "inactive"}


def test_a_property_systemd_does_not_know_is_named(scopes: Scopes) -> None:
    unknown = {"org.systemd.property.NoSuchProperty": "true"}
    assert scopes.create("c", "true", annotations=unknown).returncode == 1
    assert "NoSuchProperty" in scopes.output("c")
    assert scopes.gone("c")


def test_life_of_a_scope(scopes: Scopes) -> None:
    """Limits are in the kernel and with systemd, which changes nothing when it reloads."""
    made = scopes.create("c", "sleep", "1000", resources=LIMITS)
    assert made.returncode == 0, scopes.output("c")
    path = f"/sampantest.slice/{SLICE}/box-c.scope"
    shown = scopes.show(
        *("c", "ControlGroup", "Slice", "Delegate", "ActiveState", "MemoryMax", "MemoryLow"),
        *("TasksMax", "CPUQuotaPerSecUSec", "AllowedCPUs", "MemoryLimit", "CPUShares"),
    )
    v2 = scopes.layout.mode == "v2"
    assert shown["ControlGroup"] == path
    assert shown["Slice"] == SLICE
    assert (shown["Delegate"], shown["ActiveState"]) == ("yes", "active")
    assert (shown["TasksMax"], shown["CPUQuotaPerSecUSec"]) == ("20", "500ms")
    assert shown["MemoryMax" if v2 else "MemoryLimit"] == str(64 << 20)
    assert shown["AllowedCPUs"] == ("0" if v2 else "")
    reading = cgroup.stats(scopes.layout, path)
    assert (reading.memory.limit, reading.pids.limit) == (64 << 20, 20)
    scopes.runtime.ok("start", "c")
    assert cgroup.procs(scopes.layout, path) == [scopes.runtime.pid("c")]
    scopes.runtime.ok("pause", "c")
    assert scopes.runtime.status("c") == "paused"
    scopes.runtime.ok("resume", "c")
    changes = ("--memory", "32m", "--memory-swap", "32m", "--cpu-quota", "20000", "--cpu-period")
    scopes.runtime.ok("update", *changes, "100000", "--pids-limit", "30", "c")
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    shown = scopes.show("c", "MemoryMax", "MemoryLimit", "TasksMax", "CPUQuotaPerSecUSec")
    assert (shown["TasksMax"], shown["CPUQuotaPerSecUSec"]) == ("30", "200ms")
    assert shown["MemoryMax" if v2 else "MemoryLimit"] == str(32 << 20)
    reading = cgroup.stats(scopes.layout, path)
    assert (reading.memory.limit, reading.pids.limit) == (32 << 20, 30)
    # A device that is not allowed stays so; so do those that are.
    probing = "cat /proc/self/cgroup; head -c1 /dev/zero | wc -c; cat /dev/kmsg"
    node = ("mknod /dev/kmsg c 1 11;", probing)
    result = scopes.runtime("exec", "c", "sh", "-c", " ".join(node))
    assert result.returncode == 1
    assert "Operation not permitted" in result.stderr, result
    scopes.runtime.ok("delete", "--force", "c")
    assert scopes.gone("c")


def test_failures_leave_no_unit(scopes: Scopes) -> None:
    """What does not start is undone; what was killed for memory gives its name free."""
    made = scopes.create("c", "true", cgroupsPath="/box/c")
    assert made.returncode == 1
    assert "slice:prefix:name" in scopes.output("c")
    assert scopes.create("c", "true", cgroupsPath="box:box:c").returncode == 1
    assert "'box' is no name of a systemd slice" in scopes.output("c")
    assert scopes.create("c", "true", cwd="/nowhere/\0").returncode == 1
    assert scopes.gone("c")
    limits = {"memory": {"limit": 8 << 20, "swap": 8 << 20}}
    program = ("sh", "-c", "x=12345678; while :; do x=$x$x; done")
    for _ in range(2):
        assert scopes.create("c", *program, resources=limits).returncode == 0, scopes.output("c")
        scopes.runtime.ok("start", "c")
        scopes.runtime.wait("c")
        scopes.runtime.ok("delete", "c")
        assert scopes.gone("c")


def test_delegated_cgroup_can_be_divided(scopes: Scopes) -> None:
    """Inside the scope a container may make cgroups of its own, with controllers."""
    if scopes.layout.mode != "v2":
        pytest.skip("cgroup v1 has no safe delegation")
    config = scopes.runtime.config("c")
    mounts = [dict(mount) for mount in config["mounts"]]
    for mount in mounts:
        if mount["type"] == "cgroup":
            mount["options"] = ["rw", "nosuid", "noexec", "nodev"]
    script = """cd /sys/fs/cgroup && mkdir init sub && echo 1 >init/cgroup.procs &&
        echo 0 >init/cgroup.procs && echo +pids +memory >cgroup.subtree_control &&
        echo 5 >sub/pids.max && cat sub/pids.max && exec sleep 1000"""
    made = scopes.create("c", "sh", "-c", script, mounts=mounts)
    assert made.returncode == 0, scopes.output("c")
    scopes.runtime.ok("start", "c")
    scopes.runtime.ok("exec", "--cgroup", "init", "c", "true")
    assert scopes.output("c") == "5\n"
    scopes.runtime.ok("delete", "--force", "c")
    assert scopes.gone("c")
