"""The server killed again and again while images are pushed: what it accepted is whole."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from pathlib import Path

import pytest

from sampan.content.store import FileStore
from sampan.errors import SampanError
from sampan.model.digest import Digest
from sampan.model.reference import Reference
from sampan.registry import Patience, Registry, Settings
from sampan.registry.server import serve
from sampan.registry.server.collector import Collector
from sampan.registry.server.config import ServerConfig
from sampan.registry.server.filesystem import FileDriver
from sampan.registry.server.store import Store
from tests.conformance.registry.test_features import children, processes
from tests.unit.registry import samples


async def test_a_worker_that_ends_before_it_reads_is_started_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/true")
    monkeypatch.setattr(serve, "_RESTART_PAUSE", 0)
    told: list[str] = []
    enough = asyncio.Event()

    def tell(message: str, *words: object) -> None:
        told.append(message % words)
        if len(told) >= 100:
            enough.set()

    monkeypatch.setattr(serve._log, "error", tell)
    worker = serve.Worker(number=3, metrics_fd=2, port=1, config=ServerConfig())
    task = asyncio.create_task(serve._supervise(worker, asyncio.Event()))
    waiting = asyncio.create_task(enough.wait())
    await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert set(told) == {"worker 3 ended with 0; starting it again"}


async def test_killed_workers_lose_nothing_that_was_accepted(
    tmp_path: Path, content: FileStore
) -> None:
    accepted: list[tuple[str, samples.Sample]] = []
    patience = Patience(attempts=12, pause=0.2)

    async def push(address: str, number: int) -> None:
        for turn in range(4):
            sample = samples.image(2, 400_000)
            sample.store(content)
            tag = f"{number}-{turn}"
            async with Registry(Settings(patience=patience, chunk=150_000)) as registry:
                try:
                    reference = Reference.parse(f"{address}/a:{tag}")
                    await registry.push(reference, sample.digest, content=content)
                except SampanError:  # refused or unreachable: the client knows
                    await asyncio.sleep(1)  # nobody may listen for a moment
                    continue
            accepted.append((tag, sample))

    async with processes(tmp_path, 2) as (address, pid):
        choose = random.Random(1)

        async def kill() -> None:
            for _ in range(8):
                await asyncio.sleep(choose.uniform(0.2, 0.6))
                if workers := children(pid):
                    os.kill(choose.choice(workers), signal.SIGKILL)

        killing = asyncio.create_task(kill())
        await asyncio.gather(*(push(address, number) for number in range(3)))
        await killing
        await push(address, 3)  # in peace: something is accepted on any machine
    assert accepted
    driver = FileDriver(tmp_path / "shared")
    store = Store(driver, grace=0)
    report = await Collector(store, upload_age=0).collect()
    for tag, sample in accepted:
        assert await store.tag("a", tag) == sample.digest
        assert (await store.view("a", sample.digest)) is not None
        for blob in sample.blobs:
            entry = await store.blob("a", Digest.of(blob))
            assert entry
            assert (tmp_path / "shared" / entry.key).read_bytes() == blob
    # Every blob has its digest, and nothing of broken uploads is left.
    async for entry in driver.list("blobs/"):
        data = (tmp_path / "shared" / entry.key).read_bytes()
        assert str(Digest.of(data)).endswith(entry.key.rpartition("/")[2])
    assert [entry async for entry in driver.uploads()] == [], report
    await driver.close()
