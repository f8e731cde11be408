"""A build that kills its engine: at the Nth trace point, or (N = 0) in the middle of a step.

usage: python -m tests.crash.engine.builder ROOT N; exit status 0 when it had fewer points than N.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import sampan
from sampan import from_
from sampan.build.cache import BuildCache
from sampan.runtime.client import Launcher
from sampan.snapshot import records
from tests.crash.engine.victim import arm
from tests.engines import BUSYBOX, World

POINTS: tuple[tuple[object, str], ...] = (
    (Launcher, "create"),
    (records, "syncfs"),
    (records.Records, "commit"),
    (BuildCache, "store"),
)
#: Files the step makes, half of them before it says so.
FILES = 40


async def build(world: World, limit: int | None = None) -> sampan.BuiltImage:
    """Build and put the tree out below ``world.root/out``; ``limit`` None: to the end."""
    context = world.root / "context"
    (context / "bin").mkdir(parents=True, exist_ok=True)
    (context / "bin" / "busybox").write_bytes(BUSYBOX.read_bytes())
    (context / "bin" / "busybox").chmod(0o755)
    (context / "bin" / "sh").unlink(missing_ok=True)
    (context / "bin" / "sh").symlink_to("busybox")
    half = FILES // 2
    script = (
        f"b=/bin/busybox; for i in $($b seq {half}); do echo $i > /f$i; done; echo half; "
        f"$b sleep 0.5; for i in $($b seq {half + 1} {FILES}); do echo $i > /f$i; done"
    )
    recipe = from_("scratch").copy("bin", "/bin").run(script, network="none")

    def news(_name: str, data: bytes) -> None:
        if limit == 0 and b"half" in data:
            os.kill(os.getpid(), signal.SIGKILL)

    engine = await sampan.AsyncEngine.open(world.config)
    try:
        if limit:
            arm(limit, POINTS)
        out = f"type=local,dest={world.root}/out"
        return await engine.build(recipe, context=context, outputs=[out], news=news)
    finally:
        await engine.close()


if __name__ == "__main__":
    asyncio.run(build(World(Path(sys.argv[1])), int(sys.argv[2])))
