"""A registry server in this process, over every kind of store, and small clients for it."""

from __future__ import annotations

import io
import os
import re
import socket
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import msgspec
import pytest

from sampan.content.store import FileStore
from sampan.model.digest import Digest
from sampan.registry import Registry, Settings
from sampan.registry.server.config import S3, ServerConfig, Storage
from sampan.registry.server.serve import serving
from tests.unit.registry.samples import Sample

Answer = tuple[int, dict[str, str], bytes]


@dataclass(slots=True)
class Server:
    """A running registry and an HTTP client for it."""

    address: str
    config: ServerConfig
    http: aiohttp.ClientSession

    async def ask(
        self,
        method: str,
        path: str,
        body: bytes | AsyncIterator[bytes] | None = None,
        headers: dict[str, str] | None = None,
        *,
        follow: bool = True,
    ) -> Answer:
        """Status, headers in lower case, and body of an exchange; ``path`` may be a URL."""
        url = path if "://" in path else f"http://{self.address}{path}"
        data = io.BytesIO(body) if isinstance(body, bytes) and body else body
        async with self.http.request(
            method, url, data=data, headers=headers, allow_redirects=follow
        ) as response:
            found = {name.lower(): value for name, value in response.headers.items()}
            return response.status, found, await response.read()

    async def push_blob(self, repository: str, data: bytes) -> Digest:
        digest = Digest.of(data)
        path = f"/v2/{repository}/blobs/uploads/?digest={digest}"
        status, _, body = await self.ask("POST", path, data)
        assert status == 201, body
        return digest

    async def push(self, repository: str, sample: Sample, tag: str = "") -> Answer:
        """Push all of a sample; the answer to its manifest."""
        for blob in sample.blobs:
            await self.push_blob(repository, blob)
        path = f"/v2/{repository}/manifests/{tag or sample.digest}"
        return await self.ask("PUT", path, sample.manifest, {"Content-Type": sample.media_type})


Start = Callable[..., "object"]


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an S3 server process of this test run's own (moto)."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path_factory.mktemp("s3") / "log"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
    try:
        while not re.search(rb"Running on", log.read_bytes()):
            assert process.poll() is None, log.read_text()
            with socket.socket() as wait:
                wait.settimeout(0.1)
                if wait.connect_ex(("127.0.0.1", port)) == 0:
                    break
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


async def bucket(endpoint: str) -> S3:
    """A new bucket."""
    name = f"registry-{uuid.uuid4().hex[:12]}"
    async with aiohttp.ClientSession() as http, http.put(f"{endpoint}/{name}") as response:
        assert response.status == 200
    return S3(endpoint=endpoint, bucket=name, access_key="key", secret_key="secret", prefix="p")


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Callable[..., object]]:
    """``await start(storage=..., ...)``: a server with such a configuration."""
    async with AsyncExitStack() as stack:

        async def begin(**options: object) -> Server:
            base = ServerConfig(listen="127.0.0.1:0", storage=Storage(root=str(tmp_path / "root")))
            config = msgspec.structs.replace(base, **options)
            host, port = await stack.enter_async_context(serving(config))
            http = await stack.enter_async_context(aiohttp.ClientSession())
            return Server(f"{host}:{port}", config, http)

        yield begin


@pytest.fixture(params=["files", "s3", "s3-without-redirect"])
async def server(
    request: pytest.FixtureRequest, start: Callable[..., object], tmp_path: Path
) -> Server:
    """A server over each kind of store."""
    storage = Storage(root=str(tmp_path / "root"))
    if request.param != "files":
        made = await bucket(request.getfixturevalue("s3"))
        made = msgspec.structs.replace(made, redirect=request.param == "s3")
        storage = msgspec.structs.replace(storage, s3=made)
    return await start(storage=storage)  # type: ignore[misc, no-any-return]


@pytest.fixture
def content(tmp_path: Path) -> FileStore:
    """An empty content store."""
    return FileStore(tmp_path / "content")


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    """A client."""
    async with Registry(Settings()) as client:
        yield client
