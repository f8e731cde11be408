"""Pull-through cache, quotas, webhooks, metrics, pages, several processes, garbage by timer."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from sampan.content.store import FileStore
from sampan.errors import NotFound, SampanError
from sampan.model.digest import Digest
from sampan.model.reference import Reference
from sampan.registry import Registry
from sampan.registry.server.config import Quota, Storage, Upstream, Webhook
from tests.conformance.registry.conftest import Server
from tests.unit.registry import samples

Start = Callable[..., Awaitable[Server]]


@asynccontextmanager
async def gateway(server: Server) -> AsyncIterator[tuple[str, list[str], asyncio.Event]]:
    """A way to a server that can be closed: its address, what passed, and whether it is open."""
    seen: list[str] = []
    is_open = asyncio.Event()
    is_open.set()

    async def forward(request: web.BaseRequest) -> web.StreamResponse:
        if not is_open.is_set():
            return web.Response(status=503)
        seen.append(f"{request.method} {request.path}")
        status, headers, body = await server.ask(
            request.method, str(request.rel_url), headers=dict(request.headers)
        )
        kept = {
            name: value
            for name, value in headers.items()
            if name in ("content-type", "docker-content-digest", "link")
        }
        if request.method == "HEAD":
            response = web.StreamResponse(status=status, headers=kept)
            response.content_length = int(headers.get("content-length", "0"))
            return response
        return web.Response(status=status, headers=kept, body=body)

    runner = web.ServerRunner(web.Server(forward), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        host, port = runner.addresses[0][:2]
        yield f"{host}:{port}", seen, is_open
    finally:
        await runner.cleanup()


async def test_a_pull_through_cache(start: Start, content: FileStore, tmp_path: Path) -> None:
    origin = await start()
    sample = samples.image(2, 3_000_000)
    await origin.push("team/app", sample, "v1")
    async with gateway(origin) as (address, seen, is_open):
        upstream = Upstream(url=f"http://{address}", prefix="hub/", fresh_seconds=0)
        cache = await start(storage=Storage(root=str(tmp_path / "cache")), upstreams=(upstream,))
        reference = Reference.parse(f"{cache.address}/hub/team/app:v1")
        stores = [content, *(FileStore(tmp_path / f"c{number}") for number in range(3))]
        async with Registry() as registry:
            # Several clients at once: every blob comes once.
            clients = [Registry() for _ in stores]
            await asyncio.gather(
                *(
                    client.pull(reference, content=store)
                    for client, store in zip(clients, stores, strict=True)
                )
            )
            for client in clients:
                await client.close()
            for blob in sample.blobs[1:]:
                path = f"GET /v2/team/app/blobs/{Digest.of(blob)}"
                assert sum(line == path for line in seen) == 1
            assert stores[2].read(Digest.of(sample.blobs[1])) == sample.blobs[1]
            seen.clear()
            fresh = FileStore(tmp_path / "fresh")
            await registry.pull(reference, content=fresh)
            assert {line.partition(" ")[0] for line in seen} <= {"HEAD"}  # only the tag is asked
            # A new image under the tag is noticed.
            newer = samples.image(1)
            await origin.push("team/app", newer, "v1")
            assert (await registry.pull(reference, content=content)).root.digest == newer.digest
            # The upstream goes away: what is known is served, with a warning.
            is_open.clear()
            path = "/v2/hub/team/app/manifests/v1"
            status, headers, body = await cache.ask("GET", path)
            assert (status, body) == (200, newer.manifest)
            assert headers["warning"].startswith("299 - ")
            assert (await cache.ask("GET", "/v2/hub/team/app/manifests/v2"))[0] == 503
            is_open.set()
            with pytest.raises(NotFound):
                await registry.pull(Reference.parse(f"{cache.address}/hub/nope:x"), content=content)
            with pytest.raises(SampanError):
                await registry.push(reference, newer.digest, content=content)
        _, _, body = await cache.ask("GET", "/metrics")
        assert b"sampan_registry_upstream_stale_total 1\n" in body
        # What is not below the prefix is this registry's own.
        assert (await cache.push("own", samples.image(1), "x"))[0] == 201


async def test_quotas(start: Start) -> None:
    server = await start(quotas=(Quota(repository="small/*", bytes=10_000),))
    assert (await server.push("small/a", samples.image(1, 5000), "x"))[0] == 201
    assert (await server.push("large", samples.image(1, 50_000), "x"))[0] == 201
    data = os.urandom(9_000)
    path = f"/v2/small/a/blobs/uploads/?digest={Digest.of(data)}"
    status, _, body = await server.ask("POST", path, data)
    assert (status, json.loads(body)["errors"][0]["code"]) == (403, "DENIED")

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield data

    # The length need not be announced.
    _, headers, _ = await server.ask("POST", "/v2/small/a/blobs/uploads/", b"")
    status, _, _ = await server.ask("PATCH", headers["location"], pieces())
    assert status == 403
    other = await server.push_blob("large", data)
    path = f"/v2/small/a/blobs/uploads/?mount={other}&from=large"
    assert (await server.ask("POST", path, b""))[0] == 403
    assert (await server.push("small/b", samples.image(1, 5000), "x"))[0] == 201


async def test_webhooks(start: Start) -> None:
    received: list[dict[str, object]] = []
    refused = 0
    arrived = asyncio.Event()

    async def take(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal refused
        assert request.headers["X-Secret"] == "s"
        if not refused:
            refused += 1
            return web.Response(status=500)
        received.extend(json.loads(await request.read())["events"])
        if len(received) >= 5:
            arrived.set()
        return web.Response()

    runner = web.ServerRunner(web.Server(take), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    hook = Webhook(url=f"http://{host}:{port}/", headers={"X-Secret": "s"})
    try:
        server = await start(webhooks=(hook,))
        sample = samples.image(1)
        await server.push("a", sample, "v1")
        await server.ask("GET", "/v2/a/manifests/v1")
        await server.ask("DELETE", "/v2/a/manifests/v1")
        await asyncio.wait_for(arrived.wait(), 30)
    finally:
        await runner.cleanup()
    assert [item["action"] for item in received] == ["push", "push", "push", "pull", "delete"]
    target = received[2]["target"]
    assert isinstance(target, dict)
    assert (target["repository"], target["tag"]) == ("a", "v1")
    assert target["digest"] == str(sample.digest)


async def test_metrics(start: Start) -> None:
    server = await start()
    await server.push("a", samples.image(1), "v1")
    for _ in range(3):
        await server.ask("GET", "/v2/a/manifests/v1")
    _, headers, body = await server.ask("GET", "/metrics")
    text = body.decode()
    assert headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'sampan_registry_requests_total{endpoint="manifest",method="GET",code="200"} 3\n' in text
    assert 'sampan_registry_request_seconds_count{endpoint="manifest"} 4\n' in text
    for line in text.splitlines():
        assert re.fullmatch(r"# (HELP|TYPE) .+|[a-z_]+(\{.+\})? [0-9.]+", line), line


async def test_read_only_and_no_deletion(start: Start) -> None:
    server = await start(delete=False, warning='old "news"')
    await server.push("a", samples.image(1), "v1")
    status, headers, _ = await server.ask("DELETE", "/v2/a/manifests/v1")
    assert status == 405
    assert headers["warning"] == '299 - "old \\"news\\""'
    server = await start(read_only=True)
    assert (await server.ask("POST", "/v2/a/blobs/uploads/", b""))[0] == 405
    assert (await server.ask("GET", "/v2/a/manifests/v1"))[0] == 200


async def test_ten_thousand_tags_in_pages(start: Start, tmp_path: Path) -> None:
    server = await start()
    sample = samples.image(0)
    await server.push("many", sample, "first")
    directory = tmp_path / "root/repositories/many/_tags"
    for number in range(10_000):
        (directory / f"t{number:05}").write_text(str(sample.digest))
    found: list[str] = []
    path = "/v2/many/tags/list?n=1000"
    pages = 0
    while path:
        _, headers, body = await server.ask("GET", path)
        found += json.loads(body)["tags"]
        pages += 1
        path = headers.get("link", "").partition(">")[0].removeprefix("<")
    assert (len(found), pages) == (10_001, 11)
    assert found == sorted(found)


@asynccontextmanager
async def processes(tmp_path: Path, workers: int) -> AsyncIterator[tuple[str, int]]:
    """A server of several processes: address and pid."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "sampan.registry.server",
        "--listen",
        "127.0.0.1:0",
        "--root",
        str(tmp_path / "shared"),
        "--workers",
        str(workers),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout
        line = await asyncio.wait_for(process.stdout.readline(), 60)
        yield line.decode().split()[-1], process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.wait(), 60)
    assert process.returncode == 0


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


async def test_several_processes_serve_one_store_and_are_replaced(
    tmp_path: Path, content: FileStore
) -> None:
    sample = samples.image(3, 2_000_000)
    root = sample.store(content)
    async with processes(tmp_path, 3) as (address, pid):
        workers = children(pid)
        assert len(workers) == 3
        reference = Reference.parse(f"{address}/a:x")
        for number in range(4):  # connections are spread: each push is served by several
            async with Registry() as registry:
                await registry.push(
                    Reference.parse(f"{address}/a{number}:x"), root, content=content
                )
        os.kill(workers[0], signal.SIGKILL)
        while workers[0] in children(pid) or len(children(pid)) < 3:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        async with Registry() as registry:
            await registry.push(reference, root, content=content)
            fresh = FileStore(tmp_path / "fresh")
            assert (await registry.pull(reference, content=fresh)).root.digest == root


async def test_pages(start: Start) -> None:
    server = await start()
    image = samples.image(2, 5000)
    referrer = samples.image(1, subject=image.descriptor(), artifact_type="x/<sig>")
    listed = samples.index(
        image.descriptor(platform={"os": "linux", "architecture": "amd64"}),
    )
    await server.push("team/app", image, "v1")
    await server.push("team/app", referrer)
    await server.push("team/app", listed, "all")
    _, headers, body = await server.ask("GET", "/")
    assert headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in headers["content-security-policy"]
    assert b'<a href="/r/team/app">team/app</a>' in body
    _, _, body = await server.ask("GET", "/r/team/app")
    assert b'<a href="/r/team/app:v1">v1</a>' in body
    assert b"index of 1" in body
    _, _, body = await server.ask("GET", "/r/team/app:v1")
    text = body.decode()
    assert f"docker pull {server.address}/team/app:v1" in text
    assert "RUN &lt;b&gt;thing&lt;/b&gt;" in text
    assert "x/&lt;sig&gt;" in text
    assert "2 layers, 1" in text
    _, _, body = await server.ask("GET", "/r/team/app:all")
    assert b"linux/amd64" in body
    for path in ("/r/none", "/r/team/app:none", "/x"):
        assert (await server.ask("GET", path))[0] == 404


async def test_pages_in_a_browser(start: Start, tmp_path: Path) -> None:
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("chromium is not installed")
    server = await start()
    await server.push("team/app", samples.image(3, 5000), "v1")

    def see(path: str) -> str:
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
        command += [f"--user-data-dir={tmp_path / 'profile'}", f"http://{server.address}{path}"]
        return subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=120
        ).stdout

    dom = await asyncio.to_thread(see, "/r/team/app:v1")
    assert "<h1>team/app:v1</h1>" in dom
    assert dom.count('<div class="bar"') == 3
