"""kill -9 of the engine before and after every effect; the next one finds a consistent world."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sampan.engine.engine import Engine
from sampan.kernel import cgroup, rtdump
from sampan.kernel.netlink import NetlinkSocket
from sampan.wire.container import HostConfig
from tests.engines import World, run

REPOSITORY = Path(__file__).parents[3]
#: more trace points than the victim has; the test fails if it were to grow past this
MOST = 120


def victim(world: World, point: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.crash.engine.victim", str(world.root), str(point)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


async def settle(engine: Engine) -> None:
    """Wait until containers that were to go by themselves have gone."""
    for container in await engine.containers.list(all=True):
        shown = await engine.containers.inspect(container.id or "")
        assert shown.host_config is not None
        assert shown.state is not None
        if shown.host_config.auto_remove and shown.state.started_at != "0001-01-01T00:00:00Z":
            async with asyncio.timeout(10):
                await (await engine.containers.wait(container.id or "", "removed"))


async def check(engine: Engine) -> None:
    """Whatever is listed is what it says; everything can be used and removed."""
    for container in await engine.containers.list(all=True):
        shown = await engine.containers.inspect(container.id or "")
        assert shown.state is not None
        if shown.state.running:
            os.kill(shown.state.pid or 0, 0)
            status = engine.core.containers.find(container.id or "")
            assert status.run is not None
            assert status.endpoints
        else:
            assert shown.state.status in ("created", "exited"), shown.state
    done = await run(engine, "echo", "alive", host=HostConfig(auto_remove=True))
    assert (done.output, done.code) == ("alive\n", 0)
    for container in await engine.containers.list(all=True):
        await engine.containers.remove(container.id or "", force=True, volumes=True)
    await engine.volumes.prune({"all": ["true"]})
    await engine.networks.prune()


def leftovers(world: World) -> list[str]:
    """Everything in the world that belongs to no image and no default network."""
    config = world.config
    found = [f"exec: {p.name}" for p in config.exec_containers.iterdir()]
    found += [f"files: {p.name}" for p in config.containers.iterdir()]
    found += [f"volume: {p.name}" for p in (config.data_root / "volumes").iterdir()]
    for directory in cgroup.probe().directories(config.cgroup_parent):
        if Path(directory).exists():
            found += [f"cgroup: {p}" for p in Path(directory).iterdir() if p.is_dir()]
    with NetlinkSocket() as sock:
        names = {link.name for link in rtdump.links(sock)}
    found += [f"link: {name}" for name in names - {"lo", config.bridge}]
    found += [f"mount: {line}" for line in _mounts() if str(world.root) in line]
    return found


def _mounts() -> list[str]:
    return Path("/proc/self/mountinfo").read_text().splitlines()


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_killed_at_every_point(world: World) -> None:
    for point in range(1, MOST):
        done = victim(world, point)
        assert done.returncode in (0, -9), done.stderr
        where = f"point {point}: {done.stderr.strip().rpartition(chr(10))[2] or 'ended'}"
        print(where)  # pytest shows the last ones when a test fails
        async with await world.open() as engine:
            await settle(engine)
            await check(engine)
            snapshots = [s.key for s in engine.core.snapshots.walk() if s.kind != "committed"]
            rows = {
                table: engine.core.state.read(f"SELECT count(*) FROM {table}")[0][0]
                for table in ("containers", "endpoints", "addresses")
            }
        assert snapshots == [], where
        assert rows == dict.fromkeys(rows, 0), where
        assert leftovers(world) == [], where
        if done.returncode == 0:
            return
    pytest.fail(f"the victim has more than {MOST} trace points")
