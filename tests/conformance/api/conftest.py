"""A server over the fake engine, on a Unix socket, and raw clients of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
from msgspec import json

from sampan.api.access import FULL, Access
from sampan.api.server import Daemon
from tests.conformance.api.fake import FakeEngine

if TYPE_CHECKING:
    from sampan.engine.engine import Engine


@dataclass
class Answer:
    """One HTTP answer, read to its end."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.decode(self.body)

    @property
    def message(self) -> str:
        return str(self.json["message"])


@dataclass
class Server:
    """The served fake, and ways to talk to it."""

    engine: FakeEngine
    daemon: Daemon
    path: Path

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(str(self.path))

    async def open(
        self, method: str, target: str, headers: str = "", body: bytes = b""
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Send a request, answer unread."""
        reader, writer = await self.connect()
        length = f"Content-Length: {len(body)}\r\n" if body or method in ("POST", "PUT") else ""
        writer.write(f"{method} {target} HTTP/1.1\r\nHost: x\r\n{headers}{length}\r\n".encode())
        writer.write(body)
        await writer.drain()
        return reader, writer

    async def ask(
        self, method: str, target: str, value: object = None, *, headers: str = ""
    ) -> Answer:
        """One whole exchange; ``value`` is sent as JSON (bytes as they are)."""
        body = b"" if value is None else value if isinstance(value, bytes) else json.encode(value)
        if body and "Content-Type" not in headers:
            headers += "Content-Type: application/json\r\n"
        reader, writer = await self.open(method, target, f"Connection: close\r\n{headers}", body)
        try:
            return await read_answer(reader, head=method == "HEAD")
        finally:
            writer.close()


async def read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    """Status and headers (names in lower case)."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    first, *lines = head.split("\r\n")
    pairs = (line.partition(": ")[::2] for line in lines if line)
    return int(first.split()[1]), {name.lower(): value for name, value in pairs}


async def read_answer(reader: asyncio.StreamReader, *, head: bool = False) -> Answer:
    status, headers = await read_head(reader)
    if head:
        return Answer(status, headers, b"")
    if headers.get("transfer-encoding") == "chunked":
        body = b""
        while chunk := await read_chunk(reader):
            body += chunk
    else:
        body = await reader.read()
    return Answer(status, headers, body)


async def read_chunk(reader: asyncio.StreamReader) -> bytes:
    size = int((await reader.readuntil(b"\r\n")).strip(), 16)
    data = await reader.readexactly(size)
    assert await reader.readexactly(2) == b"\r\n"
    return data


Serve = Callable[[Access], Awaitable[Server]]


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Serve]:
    """Start servers with given rights; all are stopped at the end."""
    stops = []
    engine = FakeEngine()
    daemon = Daemon(engine=cast("Engine", engine), product="1", spool_directory=tmp_path)

    async def start(access: Access) -> Server:
        path = tmp_path / f"{len(stops)}.sock"
        protocol = daemon.server(access)
        server = await asyncio.get_running_loop().create_unix_server(protocol, str(path))

        async def stop() -> None:
            server.close()
            await protocol.shutdown(0.1)

        stops.append(stop)
        return Server(engine, daemon, path)

    yield start
    for stop in stops:
        await stop()
    for attachment in (engine.containers.attachment, engine.execs.attachment):
        if attachment is not None:
            attachment.release()


@pytest.fixture
async def server(serve: Serve) -> Server:
    """A server with all rights."""
    return await serve(FULL)
