"""The power fails after a pull: what was not on the disk is unpacked again, from whole blobs."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from sampan.engine import settling
from sampan.snapshot import records
from tests.engines import World, import_busybox, request, run


def unsettled(world: World) -> bool:
    """Whether a layer is recorded that may not be on the disk."""
    meta = world.config.data_root / "snapshots/.meta"
    return any(json.loads(path.read_text())["unsettled"] for path in meta.iterdir())


async def test_layers_that_were_lost_are_unpacked_again(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boot = tmp_path / "boot"
    boot.write_text("one")
    monkeypatch.setattr(records, "BOOT_ID", boot)
    with monkeypatch.context() as patch:
        patch.setattr(records.Records, "sync", lambda self: None)  # the power fails before
        async with await world.open() as engine:
            await import_busybox(engine)
            made = await engine.containers.create(request(["cat", "/data/seed"]), "early")
    for tree in (world.config.data_root / "snapshots").iterdir():
        seed = tree / "data/seed"
        if seed.exists():
            os.truncate(seed, 0)  # as ext4 leaves what it had not allocated yet
    boot.write_text("two")
    monkeypatch.setattr(settling, "keep", lambda core: asyncio.Event().wait())
    async with await world.open() as engine:
        waiting = await engine.containers.wait(made.id or "", "next-exit")
        await engine.containers.start(made.id or "")
        assert (await waiting).status_code == 0
        outcome = await run(engine, "cat", "/data/seed")
        assert outcome.output == "seed\n"
        await engine.containers.remove("early")
    # An orderly end has flushed everything.
    assert not unsettled(world)


async def test_layers_are_flushed_once_nothing_comes_in(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    flushed = asyncio.Event()
    original = records.Records.sync

    def sync(self: records.Records) -> None:
        original(self)
        loop.call_soon_threadsafe(flushed.set)

    monkeypatch.setattr(records.Records, "sync", sync)
    async with await world.open() as engine:
        async with engine.core.ingests:
            flushed.clear()
            await import_busybox(engine)
            assert unsettled(world)
        async with asyncio.timeout(30):
            while unsettled(world):
                flushed.clear()
                await flushed.wait()
