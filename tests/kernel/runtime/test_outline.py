"""What is made before there is a plan: used by the plan it was meant for, else gone again."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from sampan.errors import InvalidParameter
from sampan.runtime.client import Making
from sampan.runtime.outline import outline
from tests.kernel.runtime.test_containers import (
    World,
    cgroups_of,
    eventually,
    pytestmark,
    unframed,
    world,
)
from tests.kernel.runtime.test_spare import namespace, waiting

__all__ = ["pytestmark", "world"]


def begun(world: World, name: str, making: Making | None) -> Making:
    assert making is not None
    eventually(lambda: bool(cgroups_of(name)), "no cgroup is made ahead of the plan")
    return making


def members(name: str) -> set[str]:
    return {pid for path in cgroups_of(name) for pid in (path / "tasks").read_text().split()}


@pytest.mark.skipif(Path("/sys/fs/cgroup/cgroup.controllers").exists(), reason="cgroup v1 only")
def test_who_waits_is_in_the_cgroups_before_the_plan(world: World) -> None:
    spare = waiting(world)
    request = world.request("/bin/cat", "/proc/self/cgroup")
    name = request.container_id
    making = begun(world, name, world.launcher.begin(outline(request)))
    eventually(lambda: members(name) == {str(spare)}, "who waits has not joined")
    monitor = world.launcher.create(request, making)
    assert monitor.pid == spare
    with monitor.attach(stdin=False, stdout=True, stderr=True) as stream:
        monitor.start()
        assert f"/{name}" in unframed(stream).decode()
    monitor.close()
    eventually(lambda: not cgroups_of(name), "cgroups are left")


def test_given_up_nothing_is_left(world: World) -> None:
    waiting(world)
    request = world.request("/bin/true")
    making = begun(world, request.container_id, world.launcher.begin(outline(request)))
    assert request.directory.exists()
    making.give_up()
    assert not request.directory.exists()
    assert not cgroups_of(request.container_id)
    making.give_up()  # again: nothing to do
    world.run("/bin/true")


def test_a_request_that_changed_meanwhile_counts(world: World) -> None:
    request = world.request("/bin/sleep", "1000")
    making = world.launcher.begin(outline(request))
    request.spec["linux"]["resources"] = {"pids": {"limit": 7}}
    monitor = world.launcher.create(request, making)
    (pids,) = (path for path in cgroups_of(request.container_id) if "/pids/" in str(path))
    assert (pids / "pids.max").read_text() == "7\n"
    monitor.abort()
    monitor.close()


def test_a_plan_that_fails_leaves_nothing(world: World) -> None:
    request = world.request("/bin/true")
    making = begun(world, request.container_id, world.launcher.begin(outline(request)))
    request.spec["process"]["rlimits"] = [{"type": "RLIMIT_NONE", "soft": 1, "hard": 1}]
    with pytest.raises(InvalidParameter, match="RLIMIT_NONE"):
        world.launcher.create(request, making)
    assert not request.directory.exists()
    assert not cgroups_of(request.container_id)


def test_one_that_does_not_fit_is_out_of_the_cgroups(world: World) -> None:
    spare = waiting(world)
    request = world.request("/bin/sleep", "1000")
    request.spec["linux"]["resources"] = {"pids": {"limit": 1}}
    namespace(request.spec, "network", None)
    monitor = world.launcher.create(request)
    monitor.start()
    assert monitor.pid != spare
    assert members(request.container_id) == {str(monitor.pid)}
    monitor.signal(9)
    monitor.close()


def test_mounts_are_made_ahead_where_they_are_the_usual_ones(world: World) -> None:
    spare = waiting(world)
    ahead = {
        line.split()[1]
        for fd in os.listdir(f"/proc/{spare}/fdinfo")
        for line in Path(f"/proc/{spare}/fdinfo/{fd}").read_text().splitlines()
        if line.startswith("mnt_id:")
    }
    request = world.request("/bin/sleep", "1000")
    usual = ["nosuid", "noexec", "nodev", "mode=1777", f"size={64 << 20}"]
    other = [*usual[:-1], "size=1m"]
    for path, options in (("/dev/shm", usual), ("/dev/own", other)):
        request.spec["mounts"].append(
            {"destination": path, "type": "tmpfs", "source": "shm", "options": options}
        )
    monitor = world.launcher.create(replace(request))
    monitor.start()
    table = Path(f"/proc/{monitor.pid}/mountinfo").read_text().splitlines()
    made = {line.split()[4]: line.split()[0] for line in table}
    assert made["/dev/shm"] in ahead
    assert made["/dev/own"] not in ahead
    monitor.signal(9)
    monitor.close()
