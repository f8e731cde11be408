"""An engine that kills itself at the Nth trace point: before or after each effect it has.

usage: python -m tests.crash.engine.victim ROOT N; exit status 0 when it had fewer points than N.
"""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from sampan.engine import creation, removal, starting, supervision
from sampan.engine.state import State
from sampan.engine.volumestore import VolumeStore
from sampan.network.bridge import BridgeDriver
from sampan.runtime.client import Launcher, Monitor
from sampan.snapshot.overlay import OverlaySnapshotter
from sampan.wire.container import HostConfig
from sampan.wire.network import NetworkCreateRequest
from tests.engines import World, import_busybox, request

POINTS: tuple[tuple[object, str], ...] = (
    (State, "_transact"),
    (OverlaySnapshotter, "prepare"),
    (OverlaySnapshotter, "remove"),
    (VolumeStore, "ensure"),
    (VolumeStore, "remove"),
    (Launcher, "begin"),
    (Launcher, "create"),
    (Monitor, "start"),
    (BridgeDriver, "attach"),
    (BridgeDriver, "detach"),
    (BridgeDriver, "ensure"),
    (BridgeDriver, "remove"),
    (creation, "_prepare"),
    (starting, "_perform"),
    (supervision, "release"),
    (removal, "_erase"),
)


def arm(limit: int, points: Sequence[tuple[object, str]] = POINTS) -> None:
    """Let each effect count twice, and the ``limit``-th count be the last thing we do."""
    left = limit

    def hit(point: str) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.write(2, f"killed {point}\n".encode())
            os.kill(os.getpid(), signal.SIGKILL)

    def wrap(name: str, function: Callable[..., object]) -> Callable[..., object]:
        @functools.wraps(function)
        def traced(*args: object, **kwargs: object) -> object:
            hit(f"before {name}")
            result = function(*args, **kwargs)
            hit(f"after {name}")
            return result

        return traced

    for owner, name in points:
        setattr(owner, name, wrap(name, getattr(owner, name)))


async def work(world: World, limit: int) -> None:
    """One of everything that has effects."""
    async with await world.open() as engine:
        await import_busybox(engine)
        arm(limit)
        await engine.networks.create(NetworkCreateRequest(name="net"))
        host = HostConfig(network_mode="net", port_bindings={"80/tcp": []})
        await engine.containers.create(
            request(["sleep", "1000"], host, volumes={"/data": {}}), "stays"
        )
        await engine.containers.start("stays")
        await engine.containers.create(request(["true"], HostConfig(auto_remove=True)), "brief")
        waiting = await engine.containers.wait("brief", "removed")
        await engine.containers.start("brief")
        await waiting
        await engine.containers.stop("stays", timeout=0)
        await engine.containers.remove("stays", volumes=True)
        await engine.networks.remove("net")


if __name__ == "__main__":
    asyncio.run(work(World(Path(sys.argv[1])), int(sys.argv[2])))
