"""Clients that probe the server: paths, lengths, cut connections, foreign uploads."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sampan.model.digest import Digest
from sampan.registry.server.config import ServerConfig, Storage
from sampan.registry.server.serve import serving


@pytest.fixture
async def address(tmp_path: Path) -> AsyncIterator[tuple[str, int]]:
    (tmp_path / "secret").write_text("secret")
    storage = Storage(root=str(tmp_path / "root"))
    async with serving(ServerConfig(listen="127.0.0.1:0", storage=storage)) as bound:
        yield bound


async def raw(address: tuple[str, int], data: bytes, *, cut: bool = False) -> bytes:
    """Send bytes as they are; the answer, or nothing when cutting the connection."""
    reader, writer = await asyncio.open_connection(*address)
    writer.write(data)
    await writer.drain()
    try:
        if cut:
            return b""
        return await asyncio.wait_for(reader.read(65536), 10)
    finally:
        writer.close()
        await writer.wait_closed()


PATHS = [
    "/v2/../../secret",
    "/v2/%2e%2e/%2e%2e/manifests/x",
    "/v2/a/../../../secret/manifests/x",
    "/v2/a%2f..%2f..%2fsecret/manifests/x",
    "/v2/a/manifests/..%2f..%2f..%2f..%2fsecret",
    "/v2/a/manifests/../../../../secret",
    "/v2/a/blobs/sha256:..%2f..%2f..%2fsecret",
    "/v2/a/blobs/uploads/..%2f..%2f..%2fsecret",
    "/v2/a/tags/list/../../../secret",
    "/v2/a/tags/list?last=..%2f..%2fsecret",
    "/v2/_catalog?last=..%2f..%2f..%2fsecret",
    "/v2/a/referrers/..%2fsecret",
    "/r/..%2f..%2fsecret",
    "/r/a:..%2f..%2fsecret",
    "/v2/a%00/manifests/x",
    "/v2/a/manifests/x%00",
]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_no_path_leads_out(
    address: tuple[str, int], tmp_path: Path, method: str, path: str
) -> None:
    request = (
        f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    )
    answer = await raw(address, request.encode())
    status = int(answer.split(b" ", 2)[1])
    assert status in (200, 400, 404, 405), answer
    assert b"secret" not in answer.partition(b"\r\n\r\n")[2].replace(b"..%2f", b"") or (
        b"invalid" in answer or b"no " in answer
    )
    assert (tmp_path / "secret").read_text() == "secret"
    assert sorted(os.listdir(tmp_path)) == ["root", "secret"]


def location_of(answer: bytes) -> bytes:
    lines = answer.split(b"\r\n")
    return next(line for line in lines if line.startswith(b"Location")).split(b" ")[1]


async def test_a_cut_upload_keeps_what_was_written_and_goes_on(address: tuple[str, int]) -> None:
    data = os.urandom(5 << 20)
    close = b"Host: x\r\nConnection: close\r\n"
    begun = await raw(
        address, b"POST /v2/a/blobs/uploads/ HTTP/1.1\r\n%sContent-Length: 0\r\n\r\n" % close
    )
    location = location_of(begun)

    async def received() -> int:
        answer = await raw(address, b"GET %s HTTP/1.1\r\n%s\r\n" % (location, close))
        found = re.search(rb"Range: 0-(\d+)", answer)
        assert found, answer
        return int(found[1]) + 1

    _, writer = await asyncio.open_connection(*address)
    writer.write(
        b"PATCH %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (location, len(data))
    )
    writer.write(data[: 3 << 20])
    await writer.drain()
    while await received() < 2 << 20:
        pass
    writer.close()
    await writer.wait_closed()
    while True:  # until the server has noticed, the upload is busy
        offset = await received()
        head = b"PATCH %s HTTP/1.1\r\n%sContent-Range: %d-%d\r\nContent-Length: %d\r\n\r\n" % (
            location,
            close,
            offset,
            len(data) - 1,
            len(data) - offset,
        )
        answer = await raw(address, head + data[offset:])
        if b" 202 " in answer:
            break
        assert b" 409 " in answer or b" 416 " in answer
    digest = str(Digest.of(data)).encode()
    answer = await raw(
        address,
        b"PUT %s?digest=%s HTTP/1.1\r\n%sContent-Length: 0\r\n\r\n" % (location, digest, close),
    )
    assert b" 201 " in answer


async def test_a_cut_manifest_is_not_stored(address: tuple[str, int]) -> None:
    head = b"PUT /v2/a/manifests/x HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
    await raw(address, head + b'{"schemaVersion":2', cut=True)
    ask = b"GET /v2/a/manifests/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    assert b"404 Not Found" in await raw(address, ask)


async def test_what_others_wrote_is_never_markup(address: tuple[str, int]) -> None:
    ask = b"GET /r/a:%3Cscript%3E HTTP/1.1\r\nHost: <b>\r\nConnection: close\r\n\r\n"
    answer = await raw(address, ask)
    assert b"Content-Type: application/json" in answer
    assert b"nosniff" in answer
