"""An engine with a crowd on one network that kills itself in the middle of a step.

usage: python -m tests.crash.engine.crowd ROOT COUNT N; as :mod:`tests.crash.engine.victim`, with
COUNT containers created, started, connected elsewhere and removed at the same time.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from sampan.engine.engine import Engine
from sampan.engine.fabric import Fabric
from sampan.kernel import rtdump
from sampan.kernel.netlink import NetlinkSocket
from sampan.network import interface
from sampan.network.bridge import BridgeDriver
from sampan.network.firewall import Firewall
from sampan.network.ports import PortReservations
from sampan.network.resolver import Resolver
from sampan.wire.container import HostConfig
from sampan.wire.network import (
    IPAM,
    IPAMConfig,
    NetworkConnectRequest,
    NetworkCreateRequest,
    NetworkDisconnectRequest,
)
from tests.crash.engine.victim import POINTS, arm
from tests.engines import World, import_busybox, request

#: what the steps of the network are made of
FINER: tuple[tuple[object, str], ...] = (
    (Fabric, "lease"),
    (Fabric, "release"),
    (PortReservations, "reserve"),
    (BridgeDriver, "_plug"),
    (BridgeDriver, "_settle"),
    (BridgeDriver, "_delete_bridge"),
    (interface, "configure"),
    (Firewall, "_run"),
    (Resolver, "plug"),
    (rtdump, "settle"),
    (NetlinkSocket, "request"),
)
#: room for 100 containers, and not for many more
SUBNETS = ("10.77.0.0/25", "fd77::/120")


def network(name: str, subnets: tuple[str, ...] = SUBNETS) -> NetworkCreateRequest:
    """A small dual-stack network."""
    ipam = IPAM(config=[IPAMConfig(subnet=subnet) for subnet in subnets])
    return NetworkCreateRequest(name=name, enable_ipv6=True, ipam=ipam)


async def crowd(engine: Engine, count: int) -> list[str]:
    """Containers that all run at once; returns every address any of them had."""
    await engine.networks.create(network("crowd"))
    await engine.networks.create(network("other", ("10.78.0.0/24", "fd78::/64")))
    running = asyncio.Barrier(count)
    found: list[str] = []

    async def live(number: int) -> None:
        name = f"c{number}"
        host = HostConfig(network_mode="crowd", port_bindings={"80/tcp": []})
        await engine.containers.create(request(["sleep", "1000"], host), name)
        await engine.containers.start(name)
        if number % 5 == 0:
            await engine.networks.connect("other", NetworkConnectRequest(container=name))
        shown = (await engine.containers.inspect(name)).network_settings
        assert shown is not None
        for endpoint in (shown.networks or {}).values():
            found.extend([endpoint.ip_address or "", endpoint.global_ipv6_address or ""])
        await running.wait()
        if number % 10 == 0:
            await engine.networks.disconnect("crowd", NetworkDisconnectRequest(container=name))
        await engine.containers.remove(name, force=True)

    async with asyncio.TaskGroup() as group:
        for number in range(count):
            group.create_task(live(number))
    await engine.networks.remove("crowd")
    await engine.networks.remove("other")
    return found


async def work(world: World, count: int, limit: int) -> None:
    async with await world.open() as engine:
        if not await engine.images.list():
            await import_busybox(engine)
        arm(limit, (*POINTS, *FINER))
        await crowd(engine, count)


if __name__ == "__main__":
    asyncio.run(work(World(Path(sys.argv[1])), int(sys.argv[2]), int(sys.argv[3])))
