"""Two manifests with one configuration are one image with the names of both."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator

import pytest

from sampan.engine.engine import Engine
from sampan.engine.imageflows import record
from sampan.engine.transfer import by_digest
from sampan.errors import NotFound
from sampan.model.reference import Reference
from sampan.wire.image import ImageSummary
from tests.archives import docker_archive, files
from tests.engines import World, chunks

LAYER = files({"a": b"1" * 5000})
PACKED = gzip.compress(LAYER, mtime=0)


@pytest.fixture
async def empty(world: World) -> AsyncIterator[Engine]:
    async with await world.open() as engine:
        yield engine


async def load(engine: Engine, layer: bytes, *tags: str) -> None:
    archive = docker_archive(layer, tags=tags, plain=(LAYER,))
    async for item in await engine.images.load(chunks(archive)):
        assert "error" not in item, item


async def listed(engine: Engine, **filters: list[str]) -> list[ImageSummary]:
    return await engine.images.list(filters=filters, shared_size=True)


async def test_they_are_listed_once(empty: Engine) -> None:
    await load(empty, LAYER, "plain:1", "both:1")
    await load(empty, PACKED, "packed:1")
    (only,) = await listed(empty)
    assert only.repo_tags == ["both:1", "plain:1", "packed:1"]
    assert only.shared_size == 0  # with nobody else
    assert (await empty.images.inspect("packed:1")).repo_tags == only.repo_tags
    (usage,) = ((await empty.system.df(["image"])).image_usage,)
    assert usage is not None
    assert usage.total_count == 1
    assert await listed(empty, reference=["packed"]) != []
    assert (await listed(empty, reference=["packed"]))[0].repo_tags == ["packed:1"]


async def test_pruning_one_without_a_name_leaves_the_other(empty: Engine) -> None:
    await load(empty, LAYER, "app:1")
    await load(empty, PACKED, "app:1")  # the name moves
    (only,) = await listed(empty)
    assert only.repo_tags == ["app:1"]
    assert await listed(empty, dangling=["true"]) == []
    blobs = len(list(empty.core.content.walk()))
    report = await empty.images.prune()
    assert report.images_deleted
    assert len(list(empty.core.content.walk())) == blobs - 2  # a manifest and its layer
    assert [item.repo_tags for item in await listed(empty)] == [["app:1"]]
    await empty.images.remove("app:1")
    with pytest.raises(NotFound):
        await empty.images.inspect("app:1")
    assert list(empty.core.content.walk()) == []
    assert list(empty.core.snapshots.walk()) == []


async def test_an_image_known_by_digest_alone_is_dangling(empty: Engine) -> None:
    """It has no tag to be run by; but it has a name, and so is among the others too."""
    await load(empty, LAYER)
    (entry,) = empty.core.images
    assert await listed(empty, dangling=["false"]) == []
    name = by_digest(Reference.parse("app"), entry.target.digest)
    await record(empty.core, entry.target, entry.id, (name,))
    for dangling in ("true", "false"):
        (found,) = await listed(empty, dangling=[dangling])
        assert found.repo_digests == [f"app@{entry.target.digest}"]
    assert (await empty.images.prune()).images_deleted
    assert await listed(empty) == []
