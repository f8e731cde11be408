"""What an engine that opens after a crash must find, and what must be gone at the end."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

from sampan.engine.engine import Engine
from sampan.kernel import cgroup, rtdump
from sampan.kernel.netlink import NetlinkSocket
from sampan.wire.container import HostConfig
from tests.engines import World, run

REPOSITORY = Path(__file__).parents[3]


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


def rows(engine: Engine) -> dict[str, int]:
    """How many rows there are of everything a container has."""
    return {
        table: int(str(engine.core.state.read(f"SELECT count(*) FROM {table}")[0][0]))
        for table in ("containers", "endpoints", "addresses")
    }


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


def rules() -> str:
    """The whole rule set of this network namespace."""
    return subprocess.run(
        ["nft", "list", "ruleset"], check=True, capture_output=True, text=True
    ).stdout


def _mounts() -> list[str]:
    return Path("/proc/self/mountinfo").read_text().splitlines()
