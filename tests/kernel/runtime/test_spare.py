"""The process that waits to be a container's first: used where it fits, and only there."""

from __future__ import annotations

import contextlib
import os
import select
import time
from dataclasses import replace
from pathlib import Path

from sampan.kernel.mount import MNT_DETACH, mount, umount2
from sampan.model import oci
from sampan.runtime.client import Launcher
from tests.kernel.runtime.test_containers import World, eventually, pytestmark, unframed, world

__all__ = ["pytestmark", "world"]


def children(pid: int) -> list[int]:
    return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def waiting(world: World) -> int:
    """The pid of the waiting first process, once there is one that waits for its plan."""
    assert world.launcher._started is not None
    launcher = world.launcher._started.child.pid
    found: list[int] = []

    def there() -> bool:
        found.clear()
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # one is just ending
            for monitor in children(launcher):
                if b"monitor" not in Path(f"/proc/{monitor}/cmdline").read_bytes():
                    found.extend(pid for pid in children(monitor) if own_pids(pid))
        return len(found) == 1 and blocked(found[0])

    eventually(there, "no first process waits")
    return found[0]


def own_pids(pid: int) -> bool:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid") != os.readlink("/proc/self/ns/pid")
    except OSError:
        return False


def blocked(pid: int) -> bool:
    """It has done all it could, and sleeps until it is told something on its channel."""
    try:
        return Path(f"/proc/{pid}/wchan").read_text() == "__skb_wait_for_more_packets"
    except OSError:
        return False


def namespace(request_spec: oci.Spec, kind: str, path: str | None) -> None:
    """Have the spec join ``path`` (None: share the host's) instead of making a new one."""
    entries = [e for e in request_spec["linux"]["namespaces"] if e["type"] != kind]
    if path is not None:
        entries.append({"type": kind, "path": path})
    request_spec["linux"]["namespaces"] = entries


def test_it_becomes_the_container(world: World) -> None:
    spare = waiting(world)
    network = os.readlink(f"/proc/{spare}/ns/net")
    monitor = world.launcher.create(world.request("/bin/true"))
    assert monitor.pid == spare
    assert os.readlink(f"/proc/{spare}/ns/net") == network
    monitor.abort()
    monitor.close()


def test_mounts_of_the_host_made_while_it_waited_are_seen(world: World, tmp_path: Path) -> None:
    waiting(world)
    mount("tmpfs", str(tmp_path), "tmpfs", 0, "size=64k")
    try:
        (tmp_path / "news").write_text("fresh")
        request = world.request("/bin/cat", "/dev/late/news")
        request.spec["mounts"].append(
            {"destination": "/dev/late", "type": "bind", "source": str(tmp_path), "options": []}
        )
        monitor = world.launcher.create(request)
        with monitor.attach(stdin=False, stdout=True, stderr=True) as stream:
            monitor.start()
            assert unframed(stream) == b"fresh"
        monitor.close()
    finally:
        umount2(str(tmp_path), MNT_DETACH)


def test_shared_and_joined_namespaces(world: World) -> None:
    own = world.launcher.create(world.request("/bin/sleep", "1000"))
    own.start()
    shared = f"/proc/{own.pid}/ns/net"
    for path, expected in ((None, "/proc/self/ns/net"), (shared, shared)):
        spare = waiting(world)
        ended = os.pidfd_open(spare)
        request = world.request("/bin/sleep", "1000")
        namespace(request.spec, "network", path)
        monitor = world.launcher.create(request)
        monitor.start()
        assert os.readlink(f"/proc/{monitor.pid}/ns/net") == os.readlink(expected)
        assert (monitor.pid == spare) == (path is not None)
        if path is None:
            assert select.select([ended], [], [], 20)[0], "who waited in vain is ended"
        monitor.signal(9)
        monitor.close()
        os.close(ended)
    own.signal(9)
    own.close()


def test_a_plan_too_large_for_a_packet(world: World) -> None:
    waiting(world)
    request = world.request("/bin/sh", "-c", "echo ${#BIG}")
    request.spec["process"]["env"].append("BIG=" + "x" * 100_000)
    request.spec["process"]["env"] += [f"V{number}=" + "y" * 100_000 for number in range(3)]
    monitor = world.launcher.create(request)
    with monitor.attach(stdin=False, stdout=True, stderr=True) as stream:
        monitor.start()
        assert unframed(stream) == b"100000\n"
    monitor.close()


def test_killed_while_it_waits_and_gone_with_its_launcher(world: World, tmp_path: Path) -> None:
    spare = waiting(world)
    ended = os.pidfd_open(spare)
    os.kill(spare, 9)
    assert select.select([ended], [], [], 20)[0]
    os.close(ended)
    output, record = world.run("/bin/sh", "-c", "echo $$")
    assert (output, record.code) == (b"1\n", 0)

    launcher = Launcher.spawn(tmp_path / "exec")
    spare = waiting(replace(world, launcher=launcher))
    ended = os.pidfd_open(spare)
    before = time.monotonic()
    launcher.close(stop=True)
    assert select.select([ended], [], [], 20)[0], f"still there after {time.monotonic() - before}"
    os.close(ended)
