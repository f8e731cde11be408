"""kill -9 of the engine before and after every effect; the next one finds a consistent world."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.crash.engine.aftermath import REPOSITORY, check, leftovers, rows, settle
from tests.engines import World

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
            left = rows(engine)
        assert snapshots == [], where
        assert left == dict.fromkeys(left, 0), where
        assert leftovers(world) == [], where
        if done.returncode == 0:
            return
    pytest.fail(f"the victim has more than {MOST} trace points")
