"""What commits were made from: hidden, never dangling, told in histories, gone with its last child.

As dockerd has it with its own image store.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from sampan.engine.engine import Engine
from sampan.engine.options import CommitOptions
from sampan.wire.container import ContainerCreateRequest, HostConfig
from tests.archives import docker_archive, files
from tests.engines import World, chunks

LAYER = files({"a": b"1" * 5000})


@pytest.fixture
async def engine(world: World) -> AsyncIterator[Engine]:
    async with await world.open() as engine:
        archive = docker_archive(LAYER, tags=("base:1",), plain=(LAYER,))
        async for item in await engine.images.load(chunks(archive)):
            assert "error" not in item, item
        yield engine


async def committed(engine: Engine, image: str, *, repo: str = "") -> str:
    """The id of a new image made from another."""
    request = ContainerCreateRequest(image=image, cmd=["/a"], host_config=HostConfig())
    made = await engine.containers.create(request, "work")
    assert made.id
    answer = await engine.containers.commit("work", CommitOptions(repo=repo, comment=image))
    await engine.containers.remove("work")
    assert answer.id
    return answer.id


async def ids(engine: Engine, *, all: bool = False, **filters: list[str]) -> set[str | None]:
    return {item.id for item in await engine.images.list(all=all, filters=filters)}


async def test_what_others_were_made_from_is_hidden_and_not_dangling(engine: Engine) -> None:
    base = (await engine.images.inspect("base:1")).id
    middle = await committed(engine, "base:1")
    assert middle in await ids(engine)
    assert await ids(engine, dangling=["true"]) == {middle}
    top = await committed(engine, middle, repo="top")
    assert await ids(engine) == {base, top}
    assert await ids(engine, all=True) == {base, middle, top}
    assert await ids(engine, dangling=["true"]) == set()
    parents = {item.id: item.parent_id for item in await engine.images.list(all=True)}
    assert parents == {base: "", middle: base, top: middle}
    assert (await engine.images.prune()).images_deleted is None
    assert middle in await ids(engine, all=True)


async def test_a_history_tells_the_images_it_went_through(engine: Engine) -> None:
    base = (await engine.images.inspect("base:1")).id
    middle = await committed(engine, "base:1")
    top = await committed(engine, middle, repo="top")
    history = await engine.images.history("top")
    assert [(step.id, step.tags) for step in history[:3]] == [
        (top, ["top:latest"]),
        (middle, None),
        (base, ["base:1"]),
    ]


async def test_the_last_one_made_from_it_takes_it_along(engine: Engine) -> None:
    base = (await engine.images.inspect("base:1")).id
    middle = await committed(engine, "base:1")
    one = await committed(engine, middle, repo="one")
    two = await committed(engine, middle, repo="two")
    assert [item.deleted for item in await engine.images.remove("one")][1] == one
    assert await ids(engine, all=True) == {base, middle, two}
    removed = [item.deleted for item in await engine.images.remove("two")]
    assert {two, middle} <= set(removed)
    assert await ids(engine, all=True) == {base}  # which has a name


async def test_without_pruning_it_stays(engine: Engine) -> None:
    base = (await engine.images.inspect("base:1")).id
    middle = await committed(engine, "base:1")
    await committed(engine, middle, repo="top")
    await engine.images.remove("top", noprune=True)
    assert await ids(engine) == {base, middle}


async def test_pruning_takes_a_whole_line_without_a_name(engine: Engine) -> None:
    base = (await engine.images.inspect("base:1")).id
    middle = await committed(engine, "base:1")
    top = await committed(engine, middle)
    report = await engine.images.prune()
    assert {top, middle} <= {item.deleted for item in report.images_deleted or ()}
    assert await ids(engine, all=True) == {base}
