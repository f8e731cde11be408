"""Files of a container: copy out, copy in, export. Streamed both ways, never held in memory."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterable, AsyncIterator

from aiohttp import web
from isal import isal_zlib
from msgspec import json

from sampan.api import reply
from sampan.api.call import Call
from sampan.api.router import Effect, Route
from sampan.engine.options import PathStat
from sampan.errors import InvalidParameter

_TAR = "application/x-tar"


async def stat(call: Call) -> web.StreamResponse:
    """``HEAD /containers/{id}/archive``."""
    path = _path(call)
    found = await call.engine.containers.archive_stat(call.name, path)
    response = reply.empty(200)
    response.headers["X-Docker-Container-Path-Stat"] = _encode(found)
    return response


async def get(call: Call) -> web.StreamResponse:
    """``GET /containers/{id}/archive``."""
    path = _path(call)
    found, source = await call.engine.containers.archive_get(call.name, path)
    headers = {"X-Docker-Container-Path-Stat": _encode(found)}
    if _takes_gzip(call.request.headers.get("Accept-Encoding", "")):
        headers["Content-Encoding"] = "gzip"
        source = _compressed(source)
    return await reply.stream(call.request, source, _TAR, headers)


def _takes_gzip(accepted: str) -> bool:
    """Whether an ``Accept-Encoding`` header has gzip without forbidding it (RFC 9110, 12.5.3)."""
    for item in accepted.split(","):
        coding, _, parameters = item.partition(";")
        if coding.strip().lower() == "gzip":
            _, _, weight = parameters.partition("=")
            return weight.strip() not in ("0", "0.0", "0.00", "0.000")
    return False


async def _compressed(source: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """A stream in gzip, at the level that costs less time than the bytes it saves."""
    packer = isal_zlib.compressobj(1, wbits=31)
    async with reply.closing(source):
        async for chunk in source:
            if packed := packer.compress(chunk):
                yield packed
    yield packer.flush()


async def put(call: Call) -> web.StreamResponse:
    """``PUT /containers/{id}/archive``."""
    path = _path(call)
    await call.accept_body()
    await call.engine.containers.archive_put(
        call.name,
        path,
        call.stream(),
        no_overwrite_dir_non_dir=call.flag("noOverwriteDirNonDir"),
        copy_uid_gid=call.flag("copyUIDGID"),
    )
    return reply.empty(200)


async def export(call: Call) -> web.StreamResponse:
    """``GET /containers/{id}/export``."""
    source = await call.engine.containers.export(call.name)
    return await reply.stream(call.request, source, "application/octet-stream")


def _path(call: Call) -> str:
    path = call.text("path")
    if not path:
        raise InvalidParameter("bad parameter: path cannot be empty")
    if "\0" in path:
        raise InvalidParameter("bad parameter: path contains a NUL byte")
    return path


def _encode(found: PathStat) -> str:
    return base64.b64encode(
        json.encode(
            {
                "name": found.name,
                "size": found.size,
                "mode": found.mode,
                "mtime": found.mtime,
                "linkTarget": found.link_target,
            }
        )
    ).decode()


_ONE = "/containers/{name}"
ROUTES = (
    Route(method="HEAD", pattern=f"{_ONE}/archive", handler=stat, effect=Effect.READ),
    Route(method="GET", pattern=f"{_ONE}/archive", handler=get, effect=Effect.READ),
    Route(method="PUT", pattern=f"{_ONE}/archive", handler=put, effect=Effect.STREAM),
    Route(method="GET", pattern=f"{_ONE}/export", handler=export, effect=Effect.READ),
)
