"""Containers in user namespaces: layers seen by inner ids, and a process kept waiting in one."""

from __future__ import annotations

import os
from pathlib import Path

from sampan.model.mount import Mount
from sampan.runtime.client import read_exit
from sampan.runtime.requests import CreateRequest
from tests.kernel.runtime.test_containers import World, eventually, pytestmark, unframed, world
from tests.kernel.runtime.test_spare import blocked, children

__all__ = ["pytestmark", "world"]
BASE = 1_000_000


def remapped(world: World, *args: str, **changes: object) -> CreateRequest:
    request = world.request(*args, **changes)
    linux = request.spec["linux"]
    linux["namespaces"] = [*linux["namespaces"], {"type": "user"}]
    linux["uidMappings"] = [{"containerID": 0, "hostID": BASE, "size": 65536}]
    linux["gidMappings"] = [{"containerID": 0, "hostID": BASE, "size": 65536}]
    return request


def run(world: World, request: CreateRequest) -> tuple[int, bytes]:
    """(pid, output) of a container that runs to its end."""
    monitor = world.launcher.create(request)
    with monitor.attach(stdin=False, stdout=True, stderr=True) as stream:
        monitor.start()
        output = unframed(stream)
    monitor.close()
    eventually(lambda: read_exit(request.directory) is not None, "it does not end")
    return monitor.pid, output


def waiting(world: World) -> dict[bool, int]:
    """Waiting first processes, by whether they are in another user namespace."""
    assert world.launcher._started is not None
    found = {}
    for monitor in children(world.launcher._started.child.pid):
        for pid in children(monitor):
            try:
                ours = os.readlink("/proc/self/ns/user") == os.readlink(f"/proc/{pid}/ns/user")
                elsewhere = os.readlink(f"/proc/{pid}/ns/pid") != os.readlink("/proc/self/ns/pid")
            except OSError:
                continue
            if elsewhere and blocked(pid):
                found[not ours] = pid
    return found


def test_a_process_waits_where_it_will_be_needed(world: World) -> None:
    """Both kinds of containers find one once there was one of each; neither gets the other's."""
    script = "cat /proc/self/uid_map; echo > /dev/stdout; exec cat /proc/sys/kernel/hostname"
    for _ in range(2):
        run(world, remapped(world, "/bin/true"))
    eventually(lambda: len(waiting(world)) == 2, "no two first processes wait")
    there = waiting(world)
    pid, output = run(world, remapped(world, "/bin/sh", "-c", script))
    assert pid == there[True]
    assert output.split() == [b"0", str(BASE).encode(), b"65536", b"box"]
    eventually(lambda: len(waiting(world)) == 2, "no two first processes wait")
    there = waiting(world)
    pid, output = run(world, world.request("/bin/cat", "/proc/self/uid_map"))
    assert pid == there[False]
    assert output.split()[:2] == [b"0", b"0"]


def test_layers_are_shared_unshifted(world: World, tmp_path: Path) -> None:
    """Lower, upper and bound files have inner ids on disk: no chown, no second copy."""
    for name in ("upper", "work", "low/etc", "bound"):
        (tmp_path / name).mkdir(parents=True)
    os.chown(tmp_path / "low/etc", 7, 8)
    overlay = Mount(
        type="overlay",
        source="overlay",
        options=(
            f"lowerdir={tmp_path / 'low'}:{world.root}",
            f"upperdir={tmp_path / 'upper'}",
            f"workdir={tmp_path / 'work'}",
        ),
    )
    bound = {
        "destination": "/bound",
        "type": "bind",
        "source": str(tmp_path / "bound"),
        "options": ["bind", "idmap"],
    }
    script = """ls -lnd /etc /bin; echo x > /new; echo y > /bound/new; busybox rm /bin/text
        ls -ln /new"""
    request = remapped(world, "/bin/sh", "-c", script, rootfs=(overlay,))
    request.spec["mounts"].append(bound)  # type: ignore[arg-type]
    _, output = run(world, request)
    owners = [line.split()[2:4] for line in output.decode().splitlines()]
    assert owners == [["0", "0"], ["7", "8"], ["0", "0"]], output
    for path in (tmp_path / "upper/new", tmp_path / "bound/new", tmp_path / "upper/bin"):
        assert (path.stat().st_uid, path.stat().st_gid) == (0, 0)
    assert (tmp_path / "upper/bin/text").is_char_device()
