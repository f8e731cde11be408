"""Many containers at once on one network: no address twice, nothing left, killed or not."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import Counter

import pytest

from sampan.engine.engine import Engine
from sampan.kernel import netns, rtdump
from sampan.kernel.netlink import NetlinkSocket
from tests.crash.engine.aftermath import REPOSITORY, check, leftovers, rows, rules, settle
from tests.crash.engine.crowd import crowd
from tests.engines import World, import_busybox

#: containers of a crowd that is killed, and how often it is
COUNT, KILLS = 12, 10
#: fewer points than a crowd of COUNT passes
POINTS = 800


async def test_a_hundred_at_once(world: World) -> None:
    async with await world.open() as engine:
        await import_busybox(engine)
        before = rules()
        found = await crowd(engine, 100)
        assert len(found) == 240
        assert [address for address, times in Counter(found).items() if times > 1] == []
        left = rows(engine)
        engine.core.fabric.drivers.bridge.flush()
        assert rules() == before
        assert left == dict.fromkeys(left, 0)
        assert not any(engine.core.fabric.leases(n) for n in engine.core.fabric.networks.values())
    assert leftovers(world) == []


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_killed_in_a_crowd(world: World) -> None:
    async with await world.open() as engine:
        await import_busybox(engine)
        before = rules()
    chance = random.Random(6)
    killed = 0
    for turn in range(KILLS):
        point = chance.randrange(1, POINTS)
        done = victim(world, point)
        assert done.returncode in (0, -9), done.stderr
        killed += done.returncode != 0
        where = f"turn {turn}, point {point}: {done.stderr.strip().rpartition(chr(10))[2]}"
        print(where)  # pytest shows the last ones when a test fails
        async with await world.open() as engine:
            await settle(engine)
            assert_truthful(engine)
            await check(engine)
            left = rows(engine)
            engine.core.fabric.drivers.bridge.flush()
            assert rules() == before, where
        assert left == dict.fromkeys(left, 0), where
        assert leftovers(world) == [], where
    assert killed > KILLS / 2


def victim(world: World, point: int) -> subprocess.CompletedProcess[str]:
    words = [str(world.root), str(COUNT), str(point)]
    return subprocess.run(
        [sys.executable, "-m", "tests.crash.engine.crowd", *words],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def assert_truthful(engine: Engine) -> None:
    """Rows, leases and the containers' own interfaces say the same, and no address twice."""
    said: dict[str, set[str]] = {}
    for container in engine.core.containers:
        if container.run is None:
            assert not container.endpoints
            continue
        wanted = {
            str(a.ip) for plug in container.endpoints.values() for a in plug.endpoint.addresses
        }
        assert wanted == _addresses(container.state.pid), container.name
        for address in wanted:
            assert address not in said, address
            said[address] = wanted
    stored = {str(row[0]) for row in engine.core.state.read("SELECT address FROM addresses")}
    leased = {
        str(address)
        for network in engine.core.fabric.networks.values()
        for address in engine.core.fabric.leases(network)
    }
    assert stored == leased == set(said)


def _addresses(pid: int) -> set[str]:
    """The addresses of a process's interfaces, loopback's and link-local ones left out."""
    namespace = netns.open_path(f"/proc/{pid}/ns/net")
    try:
        with netns.entered(namespace), NetlinkSocket() as sock:
            found = {a.interface.ip for a in rtdump.addresses(sock)}
    finally:
        os.close(namespace)
    return {str(ip) for ip in found if not ip.is_loopback and not ip.is_link_local}
