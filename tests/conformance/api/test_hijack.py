"""Connections taken over by attach and exec: half-close both ways, slow clients, detach keys."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import suppress

import aiohttp
import pytest

from sampan.api.frames import frame
from sampan.errors import CommandNotFound
from tests.conformance.api.conftest import Server, read_head
from tests.conformance.api.fake import FakeAttachment, FakeStream

UPGRADE = "Upgrade: tcp\r\nConnection: Upgrade\r\n"
ATTACH = "/containers/a/attach?stream=1&stdin=1&stdout=1&stderr=1"


def attached(server: Server, **options: bool) -> FakeAttachment:
    attachment = server.engine.containers.attachment = FakeAttachment(**options)
    return attachment


async def receive(attachment: FakeAttachment, size: int) -> bytes:
    """Exactly ``size`` bytes of what the client sent, fewer at its end of input."""
    loop = asyncio.get_running_loop()
    data = b""
    while len(data) < size and (piece := await loop.sock_recv(attachment.program, size)):
        data += piece
    return data


async def send(attachment: FakeAttachment, data: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(attachment.program, data)


@pytest.mark.parametrize(
    ("version", "tty", "media_type"),
    [("1.41", False, "raw"), ("1.42", False, "multiplexed"), ("1.42", True, "raw")],
)
async def test_the_upgrade_is_answered_as_dockerd_does(
    server: Server, version: str, tty: bool, media_type: str
) -> None:
    attached(server, tty=tty).program.close()
    reader, writer = await server.open("POST", f"/v{version}{ATTACH}", UPGRADE)
    expected = (
        f"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.{media_type}-stream\r\n"
        "Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
    )
    assert (await reader.readuntil(b"\r\n\r\n")).decode() == expected
    assert await reader.read() == b""
    writer.close()
    reader, writer = await server.open("POST", ATTACH)
    assert (await reader.readuntil(b"\r\n")) == b"HTTP/1.1 200 OK\r\n"
    writer.close()


async def test_both_halves_close_alone(server: Server) -> None:
    attachment = attached(server)
    reader, writer = await server.open("POST", ATTACH, UPGRADE)
    await read_head(reader)
    writer.write(b"question")
    writer.write_eof()
    assert await receive(attachment, 100) == b"question"
    await send(attachment, b"answer")
    assert await reader.readexactly(6) == b"answer"
    attachment.program.close()
    assert await reader.read() == b""
    writer.close()
    assert server.engine.containers.attach_options is not None
    assert server.engine.containers.attach_options.stdin


async def test_input_sent_with_the_request_is_not_lost(server: Server) -> None:
    attachment = attached(server)
    attachment.started.clear()
    reader, writer = await server.connect()
    writer.write(f"POST {ATTACH} HTTP/1.1\r\nHost: x\r\n{UPGRADE}\r\nearly".encode())
    await read_head(reader)
    writer.write(b" bird")
    writer.write_eof()
    attachment.started.set()
    assert await receive(attachment, 100) == b"early bird"
    writer.close()


async def test_a_slow_client_stalls_nothing_and_loses_nothing(server: Server) -> None:
    attachment = attached(server)
    reader, writer = await server.open("POST", ATTACH, UPGRADE)
    await read_head(reader)
    reader._transport.pause_reading()  # type: ignore[attr-defined]
    block = os.urandom(1 << 16)
    async with asyncio.timeout(30):
        for _ in range(512):  # 32 MiB: memory, the file and back again
            await send(attachment, block)
    attachment.program.close()
    reader._transport.resume_reading()  # type: ignore[attr-defined]
    for _ in range(512):
        assert await reader.readexactly(1 << 16) == block
    assert await reader.read() == b""
    writer.close()


async def test_a_client_that_goes_away_is_noticed(server: Server) -> None:
    for half_closed in (False, True):
        attachment = attached(server)
        attachment.started.clear()
        reader, writer = await server.open("POST", ATTACH, UPGRADE)
        await read_head(reader)
        if half_closed:
            writer.write_eof()
        writer.close()
        async with asyncio.timeout(5):
            while not attachment.closed:
                await server.ask("GET", "/_ping")
        attachment.program.close()


async def test_detach_keys_end_the_client_alone(server: Server) -> None:
    attachment = attached(server, tty=True)
    reader, writer = await server.open("POST", f"{ATTACH}&detachKeys=ctrl-x", UPGRADE)
    await read_head(reader)
    writer.write(b"ls\x10\x11")
    assert await receive(attachment, 2) == b"ls"
    assert await reader.read() == b""
    writer.close()
    assert attachment.detach_seen
    assert server.engine.containers.attach_options is not None
    assert server.engine.containers.attach_options.detach_keys == "ctrl-x"


async def test_the_log_comes_before_the_live_stream(server: Server) -> None:
    attachment = attached(server)

    async def backlog() -> AsyncIterator[bytes]:
        yield b"old "
        await send(attachment, b"new")
        yield b"older "

    attachment.backlog = backlog()
    reader, writer = await server.open("POST", f"{ATTACH}&logs=1", UPGRADE)
    await read_head(reader)
    assert await reader.readexactly(13) == b"old older new"
    writer.close()


async def test_an_exec_that_cannot_start_says_so_on_its_stream(server: Server) -> None:
    attachment = server.engine.execs.attachment = FakeAttachment()
    attachment.failure = CommandNotFound("no such program")
    body = b'{"Detach":false,"Tty":false}'
    headers = f"{UPGRADE}Content-Type: application/json\r\n"
    reader, writer = await server.open("POST", "/exec/e/start", headers, body)
    status, _ = await read_head(reader)
    assert status == 101
    assert await reader.read() == frame(1, b"no such program\r\n")
    writer.close()
    detached = await server.ask("POST", "/exec/e/start", {"Detach": True})
    assert (detached.status, detached.body) == (200, b"")


async def test_a_websocket_gets_payload_without_frames(server: Server) -> None:
    attachment = attached(server)
    connector = aiohttp.UnixConnector(str(server.path))
    async with aiohttp.ClientSession(connector=connector) as session:
        target = "http://x/v1.42/containers/a/attach/ws?stream=1&stdin=1&stdout=1"
        async with session.ws_connect(target) as socket:
            await socket.send_bytes(b"in")
            assert await receive(attachment, 2) == b"in"
            await send(attachment, frame(1, b"out") + frame(2, b"err")[:9])
            assert await socket.receive_bytes() == b"oute"
            attachment.program.close()
            assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE


async def test_log_followers_are_released_when_they_go(server: Server) -> None:
    stream = server.engine.containers.stream = FakeStream(b"line", forever=True)
    reader, writer = await server.open("GET", "/containers/a/logs?stdout=1&follow=1&tail=5")
    await read_head(reader)
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()
    await asyncio.wait_for(stream.closed.wait(), 5)
    assert server.engine.containers.logs_options is not None
    assert server.engine.containers.logs_options.tail == 5
