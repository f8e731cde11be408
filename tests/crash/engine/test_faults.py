"""Parts that die, disks that fill, exits nobody saw."""

from __future__ import annotations

import os
import signal
import socket
import struct
from pathlib import Path

import pytest

from sampan.engine.collecting import collect
from sampan.engine.engine import Engine
from sampan.engine.options import ImportOptions
from sampan.errors import NoSpace
from sampan.kernel.mount import MNT_DETACH, mount, umount2
from sampan.runtime.client import read_live
from sampan.wire.container import HostConfig
from tests.engines import (
    World,
    busybox_tar,
    chunks,
    import_busybox,
    logs,
    request,
    restart,
    run,
    start,
)


async def test_the_launcher_is_killed(world: World) -> None:
    async with await world.open() as engine:
        await import_busybox(engine)
        await start(engine, "goes-on")
        os.kill(launcher_of(world), signal.SIGKILL)
        done = await run(engine, "echo", "still")
        assert (done.output, done.code) == ("still\n", 0)
        state = (await engine.containers.inspect("goes-on")).state
        assert state is not None
        assert state.running
        await engine.containers.remove("goes-on", force=True)


def launcher_of(world: World) -> int:
    """The pid of the launcher serving the world's exec root."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(world.config.exec_root / "launcher.sock"))
        credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return struct.unpack("iii", credentials)[0]


async def test_a_monitor_is_killed(world: World) -> None:
    async with await world.open() as engine:
        await import_busybox(engine)
        await start(engine, "orphan")
        pid, monitor = live(engine, "orphan")
        waiting = await engine.containers.wait("orphan")
        os.kill(monitor, signal.SIGKILL)
        assert (await waiting).status_code == 137
        state = (await engine.containers.inspect("orphan")).state
        assert state is not None
        assert state.status == "exited"
        assert "monitor" in (state.error or "")
        assert ended(pid)
        await engine.containers.start("orphan")
        await engine.containers.remove("orphan", force=True)
        assert not list(engine.config.exec_containers.iterdir())


def ended(pid: int) -> bool:
    """Whether a process is no more, or but a zombie its new parent has not reaped yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def live(engine: Engine, ref: str) -> tuple[int, int]:
    """Pids of a container's first process and of its monitor."""
    container = engine.core.containers.find(ref)
    found = read_live(engine.config.exec_containers / container.id)
    assert found is not None
    return found.pid, found.monitor_pid


async def test_what_happened_while_no_engine_watched(world: World) -> None:
    async with await world.open() as engine:
        await import_busybox(engine)
        script = "read x; echo said $x; exit 6"
        for name, host in (
            ("ends", HostConfig()),
            ("vanishes", HostConfig(auto_remove=True)),
            ("returns", HostConfig(restart_policy=restart("always"))),
            ("stays", HostConfig()),
        ):
            await engine.containers.create(
                request(["sh", "-c", script], host, open_stdin=True), name
            )
            await engine.containers.start(name)
        pids = {name: live(engine, name)[0] for name in ("ends", "vanishes", "returns", "stays")}
    for name in ("ends", "vanishes", "returns"):
        descriptor = os.pidfd_open(pids[name])
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        os.close(descriptor)
    async with await world.open() as engine:
        states = {}
        for container in await engine.containers.list(all=True):
            shown = await engine.containers.inspect(container.id or "")
            states[(shown.name or "").strip("/")] = shown.state
        assert set(states) == {"ends", "returns", "stays"}
        ended, stays = states["ends"], states["stays"]
        assert ended is not None
        assert (ended.status, ended.exit_code) == ("exited", 137)
        assert stays is not None
        assert stays.pid == pids["stays"]
        events = await engine.events.subscribe(since=1, filters={"event": ["start"]})
        assert (await anext(events)).type == "container"  # "returns", by its policy
        await events.aclose()
        for name in ("returns", "stays"):
            await engine.containers.remove(name, force=True)
        assert await logs(engine, "ends") == ""


async def test_a_full_disk(world: World) -> None:
    small = world.root / "data"
    small.mkdir()
    mount("tmpfs", str(small), "tmpfs", 0, "size=3m")
    try:
        async with await world.open() as engine:
            told = await engine.images.import_(chunks(busybox_tar()), ImportOptions(repo="busybox"))
            with pytest.raises(NoSpace):
                await anext(told)
            assert await engine.images.list() == []
            await collect(engine.core, older_than=-1)
            assert not list((small / "content" / "blobs" / "sha256").iterdir())
            assert [s.key for s in engine.core.snapshots.walk()] == []
    finally:
        umount2(str(small), MNT_DETACH)


async def test_garbage_is_collected(world: World) -> None:
    async with await world.open() as engine:
        await import_busybox(engine)
        kept = {blob.digest for blob in engine.core.content.walk()}
        junk = engine.core.content.add(b"left by a crash")
        layer = "sha256:" + "0" * 64
        engine.core.snapshots.prepare("unpack", None)
        engine.core.snapshots.commit(layer, "unpack")
        await collect(engine.core)
        assert engine.core.content.exists(junk)  # too young to be garbage for sure
        await collect(engine.core, older_than=-1)
        assert {blob.digest for blob in engine.core.content.walk()} == kept
        assert not engine.core.snapshots.exists(layer)
        assert (await run(engine, "true")).code == 0
