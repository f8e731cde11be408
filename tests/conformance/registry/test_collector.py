"""Garbage collection: what goes, what stays, and that a storm of pushes loses nothing."""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import cast

import pytest

from sampan.model.digest import Digest
from sampan.registry import manifest as manifests
from sampan.registry.server import keys
from sampan.registry.server.collector import Collector
from sampan.registry.server.driver import Driver
from sampan.registry.server.errors import ProtocolError
from sampan.registry.server.filesystem import FileDriver
from sampan.registry.server.s3 import S3Driver
from sampan.registry.server.store import Store
from tests.conformance.registry.conftest import bucket
from tests.unit.registry import samples


@pytest.fixture(params=["files", "s3"])
async def driver(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Driver]:
    made: Driver
    if request.param == "files":
        made = FileDriver(tmp_path / "root")
    else:
        made = S3Driver(await bucket(request.getfixturevalue("s3")))
    yield made
    await made.close()


async def put_blob(store: Store, repository: str, data: bytes) -> Digest:
    async def once() -> AsyncIterator[bytes]:
        yield data

    digest = Digest.of(data)
    upload = os.urandom(8).hex()
    await store.driver.upload_append(upload, 0, once())
    await store.link_upload(repository, upload, digest)
    await store.driver.upload_discard(upload)
    return digest


async def push(store: Store, repository: str, sample: samples.Sample, tag: str) -> None:
    for blob in sample.blobs:
        await put_blob(store, repository, blob)
    await store.put_manifest(repository, manifests.parse(sample.manifest))
    await store.set_tag(repository, tag, sample.digest)


async def later(store: Store) -> None:
    """Until the store's clock has moved on: S3 knows whole seconds."""
    first = None
    while True:
        await store.driver.touch("clock/test")
        entry = await store.driver.stat("clock/test")
        assert entry
        first = first or entry.modified
        if entry.modified > first:
            return
        await asyncio.sleep(0.01)


async def test_only_what_nothing_refers_to_goes(driver: Driver) -> None:
    store = Store(driver, grace=0)
    kept, dropped = samples.image(2), samples.image(2)
    await push(store, "a", kept, "x")
    await push(store, "b", dropped, "x")
    shared = await put_blob(store, "b", kept.blobs[1])
    loose = await put_blob(store, "a", b"loose")
    await store.delete_manifest("b", dropped.digest)
    await later(store)
    report = await Collector(store).collect()
    for blob in kept.blobs:
        assert await store.blob("a", Digest.of(blob))
    assert await store.manifest("a", kept.digest)
    assert await store.blob("b", shared) is None
    assert await store.blob("a", loose) is None
    assert report.blobs == len(dropped.blobs) + 2  # with the manifest and the loose one
    assert await driver.stat(keys.blob(Digest.of(dropped.blobs[1]))) is None
    assert [name async for name in store.repositories()] == ["a"]
    left = [entry.key async for entry in driver.list("condemned/")]
    assert left == []


async def test_what_is_young_stays(driver: Driver) -> None:
    store = Store(driver, grace=3600)
    loose = await put_blob(store, "a", b"loose")
    await later(store)
    assert (await Collector(store).collect()).blobs == 0
    assert await store.blob("a", loose)


async def test_a_blob_a_client_was_told_of_stays(driver: Driver) -> None:
    """HEAD says it is here: that starts the grace period again."""
    now = [0.0]
    store = Store(driver, grace=3600, clock=lambda: now[0])
    loose = await put_blob(store, "a", b"loose")
    await later(store)
    entry = await driver.stat(keys.link("a", loose))
    assert entry
    now[0] = entry.modified + 1000  # older than a quarter of the grace period
    assert await store.claim_blob("a", loose)
    claimed = await driver.stat(keys.link("a", loose))
    assert claimed
    assert claimed.modified > entry.modified


async def test_what_died_writers_left_goes(driver: Driver, tmp_path: Path) -> None:
    store = Store(driver, grace=0)
    if isinstance(driver, FileDriver):
        (tmp_path / "root/blobs").mkdir(parents=True)
        (tmp_path / "root/blobs/.tmp-dead").write_bytes(b"x")
    elif isinstance(driver, S3Driver):
        await driver._client.multipart_begin("uploads/dead/data")

    async def bytes_of_an_upload() -> AsyncIterator[bytes]:
        yield b"x" * (20 << 20)

    await driver.upload_append("abandoned", 0, bytes_of_an_upload())
    await later(store)
    report = await Collector(store, upload_age=0).collect()
    assert report.uploads == 1
    assert [entry async for entry in driver.uploads()] == []
    if isinstance(driver, FileDriver):
        assert not (tmp_path / "root/blobs/.tmp-dead").exists()
    elif isinstance(driver, S3Driver):
        assert [item async for item in driver._client.multipart_list()] == []


async def test_untagged_manifests_go_when_asked_for(driver: Driver) -> None:
    store = Store(driver, grace=0)
    subject, loose = samples.image(1), samples.image(1)
    listed = samples.image(1)
    index = samples.index(listed.descriptor())
    referrer = samples.image(1, subject=subject.descriptor())
    for sample, tag in ((subject, "s"), (listed, "l"), (loose, "x"), (referrer, "r")):
        await push(store, "a", sample, tag)
    await push(store, "a", index, "i")
    for tag in ("l", "x", "r"):
        await store.delete_tag("a", tag)
    await later(store)
    report = await Collector(store, untagged_age=0).collect()
    assert report.manifests == 1
    assert await store.manifest("a", loose.digest) is None
    for sample in (subject, listed, index, referrer):
        assert await store.manifest("a", sample.digest)


async def test_a_claim_waits_for_a_collection_and_then_knows(driver: Driver) -> None:
    store = Store(driver, grace=3600)
    digest = await put_blob(store, "a", b"data")
    mark = keys.condemned(digest, "somebody")
    await driver.touch(mark)
    claim = asyncio.create_task(store.claim_blob("a", digest))
    mount = asyncio.create_task(store.mount("a", "b", digest))
    pending = (await asyncio.wait({claim, mount}, timeout=0.2))[1]
    assert len(pending) == 2
    await driver.delete(keys.blob(digest))  # the collection takes it
    await driver.delete(mark)
    assert await claim is None
    assert not await mount


class Traced:
    """A driver that stops at a step of a collection to let something else happen first."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.before: dict[tuple[str, str], Callable[[], Awaitable[None]]] = {}

    def __getattr__(self, name: str) -> object:
        return getattr(self.driver, name)

    async def _step(self, operation: str, key: str) -> None:
        for (wanted, prefix), action in list(self.before.items()):
            if wanted == operation and key.startswith(prefix):
                del self.before[wanted, prefix]
                await action()

    async def touch(self, key: str) -> None:
        await self._step("touch", key)
        await self.driver.touch(key)

    async def delete(self, key: str) -> bool:
        await self._step("delete", key)
        return await self.driver.delete(key)


@pytest.fixture
async def traced(tmp_path: Path) -> AsyncIterator[Traced]:
    driver = FileDriver(tmp_path / "root")
    yield Traced(driver)
    await driver.close()


async def begun(work: Coroutine[None, None, object]) -> asyncio.Task[object]:
    """A task that got as far as it gets by itself."""
    task = asyncio.create_task(work)
    await asyncio.wait({task}, timeout=0.3)
    return task


async def test_a_manifest_pushed_before_condemning_saves_its_blobs(traced: Traced) -> None:
    store = Store(traced.driver, grace=0)
    sample = samples.image(1)
    for blob in sample.blobs:
        await put_blob(store, "a", blob)

    async def push_now() -> None:
        await store.put_manifest("a", manifests.parse(sample.manifest))

    await later(store)
    traced.before["touch", "condemned/"] = push_now
    await Collector(Store(cast(Driver, traced), grace=0)).collect()
    assert not traced.before
    for blob in sample.blobs:
        assert await store.blob("a", Digest.of(blob))


async def test_a_manifest_pushed_while_its_blobs_are_deleted_is_refused(traced: Traced) -> None:
    store = Store(traced.driver, grace=0)
    sample = samples.image(1)
    for blob in sample.blobs:
        await put_blob(store, "a", blob)
    tasks: list[asyncio.Task[object]] = []

    async def push_now() -> None:
        work = store.put_manifest("a", manifests.parse(sample.manifest))
        tasks.append(await begun(work))
        assert not tasks[0].done()  # it waits for the collection

    await later(store)
    traced.before["delete", "repositories/a/_blobs/"] = push_now
    await Collector(Store(cast(Driver, traced), grace=0)).collect()
    with pytest.raises(ProtocolError, match="not in the repository"):
        await tasks[0]
    assert await store.manifest("a", sample.digest) is None


async def test_a_claim_during_deletion_is_told_the_truth(traced: Traced) -> None:
    store = Store(traced.driver, grace=0)
    digest = await put_blob(store, "a", b"data")
    tasks: list[asyncio.Task[object]] = []

    async def claim_now() -> None:
        tasks.append(await begun(store.claim_blob("a", digest)))
        assert not tasks[0].done()

    await later(store)
    traced.before["delete", "repositories/a/_blobs/"] = claim_now
    await Collector(Store(cast(Driver, traced), grace=0)).collect()
    assert await tasks[0] is None


async def test_an_upload_during_deletion_of_the_same_bytes_is_stored_again(
    traced: Traced,
) -> None:
    store = Store(traced.driver, grace=0)
    digest = await put_blob(store, "a", b"data")
    await store.unlink("a", digest)
    tasks: list[asyncio.Task[object]] = []

    async def upload_now() -> None:
        tasks.append(await begun(put_blob(store, "b", b"data")))
        assert not tasks[0].done()

    await later(store)
    traced.before["delete", "blobs/"] = upload_now
    report = await Collector(Store(cast(Driver, traced), grace=0)).collect()
    assert report.blobs == 1
    assert await tasks[0] == digest
    entry = await store.blob("b", digest)
    assert entry
    assert await store.driver.get(entry.key) == b"data"


async def test_a_storm_of_pushes_during_collections_loses_no_blob(tmp_path: Path) -> None:
    """With no grace at all: a push may be refused, but what was accepted is whole."""
    store = Store(FileDriver(tmp_path), grace=0)
    pauses = random.Random(1)
    shared = [os.urandom(200) for _ in range(5)]
    accepted: list[tuple[str, samples.Sample]] = []
    refused = 0

    async def push(repository: str, sample: samples.Sample) -> None:
        for blob in sample.blobs:
            digest = Digest.of(blob)
            if await store.claim_blob(repository, digest) is None and not (
                await store.mount("r0", repository, digest)
            ):
                await put_blob(store, repository, blob)
        await store.put_manifest(repository, manifests.parse(sample.manifest))

    async def pusher(number: int) -> None:
        nonlocal refused
        for turn in range(25):
            made = samples.image(1, 50)
            blobs = (*made.blobs, *shared)
            document = manifests.parse(made.manifest)
            layers = [samples.descriptor("application/x", blob) for blob in blobs[1:]]
            sample = samples.Sample(_with_layers(document, layers), blobs)
            repository = f"r{(number + turn) % 3}"
            for _ in range(20):  # a refused client tries again, as clients do
                try:
                    await push(repository, sample)
                except ProtocolError:
                    refused += 1
                else:
                    accepted.append((repository, sample))
                    break
            if turn % 5 == 4 and accepted:  # and some are deleted again
                victim_repository, victim = accepted.pop(0)
                await store.delete_manifest(victim_repository, victim.digest)

    done = asyncio.Event()
    collections = 0

    async def collector() -> None:
        nonlocal collections
        while not done.is_set():
            await Collector(store).collect()
            collections += 1
            await asyncio.sleep(pauses.uniform(0, 0.05))  # let some pushes through

    async with asyncio.TaskGroup() as group:  # several servers may collect at the same time
        collecting = [group.create_task(collector()) for _ in range(2)]
        async with asyncio.TaskGroup() as pushing:
            for number in range(4):
                pushing.create_task(pusher(number))
        done.set()
    assert all(task.done() for task in collecting)
    await Collector(store).collect()
    assert collections > 2
    assert accepted, refused
    for repository, sample in accepted:
        assert await store.manifest(repository, sample.digest)
        for blob in sample.blobs:
            entry = await store.blob(repository, Digest.of(blob))
            assert entry, f"{repository} lost a blob"
            assert (tmp_path / entry.key).read_bytes() == blob
    await store.driver.close()


def _with_layers(document: manifests.Manifest, layers: list[dict[str, object]]) -> bytes:
    parsed = json.loads(document.raw)
    parsed["layers"] = layers
    return json.dumps(parsed).encode()
