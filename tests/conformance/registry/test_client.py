"""Pulling and pushing between content stores and a server: what travels, and what does not."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web

from sampan.content.store import FileStore
from sampan.errors import NotFound
from sampan.model.digest import Digest
from sampan.model.platform import Platform
from sampan.model.reference import Reference
from sampan.registry import (
    Event,
    LayerProgress,
    Patience,
    Pulled,
    Registries,
    Registry,
    Settings,
    Step,
)
from tests.conformance.registry.conftest import Server
from tests.unit.registry import samples

Start = Callable[..., Awaitable[Server]]


def steps(events: list[Event]) -> Counter[Step]:
    """How often each step was reported."""
    return Counter(event.step for event in events if isinstance(event, LayerProgress))


async def test_there_and_back(server: Server, registry: Registry, content: FileStore) -> None:
    sample = samples.image(3, 2_000_000)
    root = sample.store(content)
    reference = Reference.parse(f"{server.address}/team/app:v1")
    events: list[Event] = []
    done = await registry.push(reference, root, content=content, listener=events.append)
    assert (done.digest, done.tag) == (root, "v1")
    assert steps(events)[Step.PUSHED] == 4
    events.clear()
    await registry.push(reference, root, content=content, listener=events.append)
    assert steps(events)[Step.THERE] == 4

    other = FileStore(content.root.parent / "other")
    events.clear()
    seen: list[Pulled] = []

    async def resolved(pulled: Pulled) -> None:
        assert other.exists(pulled.manifest.digest)
        assert other.exists(pulled.config.digest)
        for layer in pulled.layers:  # what an unpacker does
            with other.follow(layer.digest, timeout=10) as stream:
                data = await asyncio.to_thread(stream.readall)  # type: ignore[attr-defined]
                assert Digest.of(data) == layer.digest
        seen.append(pulled)

    pulled = await registry.pull(
        reference, content=other, listener=events.append, resolved=resolved
    )
    assert seen == [pulled]
    assert [other.read(layer.digest) for layer in pulled.layers] == list(sample.blobs[1:])
    assert steps(events)[Step.DOWNLOADED] == 3
    events.clear()
    await registry.pull(reference, content=other, listener=events.append)
    assert steps(events) == {Step.PRESENT: 3}
    by_digest = Reference.parse(f"{server.address}/team/app@{root}")
    assert (await registry.pull(by_digest, content=other)).root.digest == root


async def test_an_index_gives_the_platform_asked_for(
    server: Server, registry: Registry, content: FileStore
) -> None:
    images = {name: samples.image(1, architecture=name) for name in ("amd64", "arm64")}
    entries = []
    for name, image in images.items():
        image.store(content)
        entries.append(image.descriptor(platform={"os": "linux", "architecture": name}))
    root = samples.index(*entries).store(content)
    reference = Reference.parse(f"{server.address}/multi")
    await registry.push(Reference.parse(f"{reference}:latest"), root, content=content)
    for name, image in images.items():
        pulled = await registry.pull(
            reference, content=content, platform=Platform.parse(f"linux/{name}")
        )
        assert (pulled.root.digest, pulled.manifest.digest) == (root, image.digest)
    with pytest.raises(NotFound, match="no matching manifest for linux/s390x"):
        await registry.pull(reference, content=content, platform=Platform.parse("linux/s390x"))


async def test_blobs_are_mounted_from_where_they_are_known_to_be(
    server: Server, registry: Registry, content: FileStore
) -> None:
    root = samples.image(2).store(content)
    first = Reference.parse(f"{server.address}/one:x")
    second = Reference.parse(f"{server.address}/two:x")
    await registry.push(first, root, content=content)
    events: list[Event] = []
    await registry.push(
        second, root, content=content, listener=events.append, sources=lambda _: [first]
    )
    assert steps(events)[Step.MOUNTED] == 3


async def test_chunked_pushes(server: Server, content: FileStore) -> None:
    root = samples.image(1, 700_000).store(content)
    async with Registry(Settings(chunk=100_000)) as registry:
        reference = Reference.parse(f"{server.address}/chunks:x")
        await registry.push(reference, root, content=content)
        assert (await registry.resolve(reference)).digest == root


async def test_what_is_missing_is_said_as_docker_says_it(
    server: Server, registry: Registry, content: FileStore
) -> None:
    reference = Reference.parse(f"{server.address}/none:x")
    with pytest.raises(NotFound) as missing:
        await registry.pull(reference, content=content)
    code = re.escape(f"manifest for {reference.familiar} not found: ") + r"(manifest|name) unknown"
    assert re.match(code, missing.value.message), missing.value.message


async def test_lists_and_deletion(server: Server, registry: Registry, content: FileStore) -> None:
    subject = samples.image(1)
    subject.store(content)
    about = samples.image(1, subject=subject.descriptor(), artifact_type="x/y")
    about.store(content)
    reference = Reference.parse(f"{server.address}/a:x")
    await registry.push(reference, subject.digest, content=content)
    await registry.push(Reference.parse(f"{server.address}/a:y"), about.digest, content=content)
    assert await registry.tags(reference) == ["x", "y"]
    async with registry.origin(reference, actions="pull,push,delete") as repository:
        assert [name async for name in repository.repositories(page=1)] == ["a"]
        assert [item.digest for item in await repository.referrers(subject.digest, "x/y")] == [
            about.digest
        ]
        assert await repository.referrers(subject.digest, "z") == []
        await repository.delete_manifest(about.digest)
        assert await repository.referrers(subject.digest) == []


class Flaky:
    """A registry in front of a real one that breaks connections and limits rates."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.requests: list[str] = []
        self.break_after = 0
        self.refuse: list[int] = []

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.path} {request.headers.get('Range', '')}")
        if self.refuse:
            return web.Response(status=self.refuse.pop(), headers={"Retry-After": "3"})
        body = await request.read()
        headers = {
            name: value
            for name, value in request.headers.items()
            if name in ("Range", "Accept", "Content-Type", "Content-Range")
        }
        status, found, answer = await self._server.ask(
            request.method, str(request.rel_url), body, headers, follow=False
        )
        kept = {
            name: value
            for name, value in found.items()
            if name in ("location", "content-type", "docker-content-digest", "range", "link")
            or name in ("content-range", "content-length")
        }
        response = web.StreamResponse(status=status, headers=kept)
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        if self.break_after and len(answer) > self.break_after:
            await response.write(answer[: self.break_after])
            assert request.transport
            request.transport.close()
            return response
        await response.write(answer)
        return response


async def behind(flaky: Flaky) -> tuple[web.ServerRunner, str]:
    runner = web.ServerRunner(web.Server(flaky))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    return runner, f"{host}:{port}"


def impatient(slept: list[float]) -> Settings:
    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    return Settings(patience=Patience(sleep=sleep, jitter=lambda: 1.0))


async def test_broken_downloads_go_on_and_limits_are_waited_for(
    start: Start, content: FileStore
) -> None:
    server = await start()
    sample = samples.image(1, 900_000)
    await server.push("a", sample, "x")
    flaky = Flaky(server)
    flaky.break_after = 250_000
    flaky.refuse = [429]
    runner, address = await behind(flaky)
    slept: list[float] = []
    try:
        async with Registry(impatient(slept)) as registry:
            # The scheme is tried first: that request takes the 429.
            await registry.pull(Reference.parse(f"{address}/a:x"), content=content)
    finally:
        await runner.cleanup()
    blob = f"/v2/a/blobs/{Digest.of(sample.blobs[1])}"
    ranges = [line.rpartition(" ")[2] for line in flaky.requests if blob in line]
    assert ranges[0] == ""
    assert len(ranges) >= 4
    starts = [int(text.removeprefix("bytes=").rstrip("-")) for text in ranges[1:]]
    assert starts == sorted(set(starts))  # always further
    assert slept[0] == 3
    assert content.exists(Digest.of(sample.blobs[1]))


async def test_a_download_given_up_goes_on_at_the_next_pull(
    start: Start, content: FileStore
) -> None:
    server = await start()
    sample = samples.image(1, 900_000)
    await server.push("a", sample, "x")
    flaky = Flaky(server)
    runner, address = await behind(flaky)
    reference = Reference.parse(f"{address}/a:x")
    seen = asyncio.Event()

    def listen(event: Event) -> None:
        if isinstance(event, LayerProgress) and event.step is Step.RETRYING:
            seen.set()

    try:
        flaky.break_after = 400_000
        blocked = asyncio.Event()

        async def sleep(seconds: float) -> None:
            await blocked.wait()

        async with Registry(Settings(patience=Patience(sleep=sleep))) as registry:
            pull = asyncio.create_task(registry.pull(reference, content=content, listener=listen))
            await seen.wait()
            pull.cancel()
            with pytest.raises(asyncio.CancelledError):
                await pull
        flaky.break_after = 0
        flaky.requests.clear()
        async with Registry() as registry:
            await registry.pull(reference, content=content)
        line = next(item for item in flaky.requests if str(Digest.of(sample.blobs[1])) in item)
        assert line.endswith("bytes=400000-")
    finally:
        await runner.cleanup()


async def test_pulls_at_the_same_time_fetch_a_blob_once(
    start: Start, content: FileStore, tmp_path: Path
) -> None:
    server = await start()
    sample = samples.image(2, 500_000)
    await server.push("a", sample, "x")
    flaky = Flaky(server)
    runner, address = await behind(flaky)
    reference = Reference.parse(f"{address}/a:x")
    try:
        async with Registry() as registry:
            pulls = [
                asyncio.create_task(registry.pull(reference, content=content)) for _ in range(5)
            ]
            pulls[0].cancel()
            results = await asyncio.gather(*pulls, return_exceptions=True)
        assert isinstance(results[0], asyncio.CancelledError)
        assert all(isinstance(item, Pulled) for item in results[1:])
        for data in sample.blobs[1:]:
            path = f"GET /v2/a/blobs/{Digest.of(data)}"
            assert sum(line.startswith(path) for line in flaky.requests) == 1
    finally:
        await runner.cleanup()


async def test_mirrors_come_first_and_may_fail(start: Start, content: FileStore) -> None:
    server = await start()
    await server.push("a/b", samples.image(1), "x")
    mirror = Flaky(server)
    mirror.refuse = [500] * 20
    runner, address = await behind(mirror)
    conf = Registries.parse(
        f"[[registry]]\nprefix='reg.example/team'\nlocation='{server.address}/a'\n"
        f"[[registry.mirror]]\nlocation='{address}/a'\n"
    )
    slept: list[float] = []
    patience = impatient(slept).patience
    try:
        async with Registry(Settings(registries=conf, patience=patience)) as registry:
            await registry.pull(Reference.parse("reg.example/team/b:x"), content=content)
        assert mirror.requests
    finally:
        await runner.cleanup()


async def test_search(start: Start, registry: Registry) -> None:
    """Docker Hub's own search where there is one, names of the catalog elsewhere."""
    server = await start()
    for name in ("team/web-app", "team/db", "web"):
        await server.push(name, samples.image(0), "x")
    found = await registry.search(f"{server.address}/web")
    assert [item.name for item in found] == ["team/web-app", "web"]
    assert len(await registry.search(f"{server.address}/web", limit=1)) == 1

    async def hub(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/v2/":
            return web.json_response({})
        assert (request.path, request.query["q"], request.query["n"]) == ("/v1/search", "deb", "25")
        entry = {"name": "debian", "description": None, "star_count": 5, "is_official": True}
        return web.json_response({"results": [entry]})

    runner = web.ServerRunner(web.Server(hub))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    try:
        (debian,) = await registry.search(f"{host}:{port}/deb")
        assert (debian.name, debian.stars, debian.official) == ("debian", 5, True)
    finally:
        await runner.cleanup()


async def test_an_image_pulled_for_one_platform_is_pushed_alone(
    start: Start, registry: Registry, content: FileStore, tmp_path: Path
) -> None:
    server = await start()
    images = [samples.image(1, architecture=name) for name in ("amd64", "arm64")]
    for image in images:
        image.store(content)
    entries = [
        image.descriptor(platform={"os": "linux", "architecture": name})
        for image, name in zip(images, ("amd64", "arm64"), strict=True)
    ]
    root = samples.index(*entries).store(content)
    source = Reference.parse(f"{server.address}/multi:x")
    await registry.push(source, root, content=content)
    other = FileStore(tmp_path / "other")
    await registry.pull(source, content=other, platform=Platform.parse("linux/arm64"))
    target = Reference.parse(f"{server.address}/single:x")
    events: list[Event] = []
    done = await registry.push(target, root, content=other, listener=events.append)
    assert done.digest == images[1].digest
    assert any("single-platform image was pushed" in str(event) for event in events)
