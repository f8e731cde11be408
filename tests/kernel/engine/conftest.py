"""One engine for a test, with an image, in a network namespace of its own."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from sampan.engine.engine import Engine
from tests import engines


@pytest.fixture
def world(tmp_path: Path) -> Iterator[engines.World]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    if not engines.BUSYBOX.exists():
        pytest.skip("needs static busybox")
    found = engines.World(tmp_path)
    with engines.network_namespace():
        try:
            yield found
        finally:
            found.clean()


@pytest.fixture
async def engine(world: engines.World) -> AsyncIterator[Engine]:
    async with await world.open() as opened:
        await engines.import_busybox(opened)
        yield opened
