"""kill -9 of the engine during a build; the next build is whole, from the cache or anew."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from tests.crash.engine.aftermath import REPOSITORY, leftovers, rows, settle
from tests.crash.engine.builder import FILES, build
from tests.engines import World

#: more trace points than the build has; the test fails if it were to grow past this
MOST = 60


def killed(world: World, point: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.crash.engine.builder", str(world.root), str(point)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


async def whole(world: World) -> None:
    """A build in the world as it is now: all its files, and nothing else left."""
    shutil.rmtree(world.root / "out", ignore_errors=True)
    await build(world)
    for number in range(1, FILES + 1):
        assert (world.root / "out" / f"f{number}").read_text() == f"{number}\n"
    async with await world.open() as engine:
        await settle(engine)
        assert [s.key for s in engine.core.snapshots.walk() if s.kind != "committed"] == []
        left = rows(engine)
    assert left == dict.fromkeys(left, 0)
    assert leftovers(world) == []


async def test_killed_in_the_middle_of_a_step(world: World) -> None:
    done = killed(world, 0)
    assert done.returncode == -9, done.stderr
    await whole(world)
    await whole(world)  # now from the cache


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_killed_at_every_point(world: World) -> None:
    for point in range(1, MOST):
        done = killed(world, point)
        assert done.returncode in (0, -9), done.stderr
        print(f"point {point}: {done.stderr.strip()}")  # shown when the test fails
        await whole(world)
        shutil.rmtree(world.config.data_root)
        if done.returncode == 0:
            return
    pytest.fail(f"the build has more than {MOST} trace points")
