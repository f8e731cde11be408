"""Files of a container: copy out, copy in, export. Streamed both ways, never held in memory."""

from __future__ import annotations

import base64

from aiohttp import web
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
    return await reply.stream(call.request, source, _TAR, headers)


async def put(call: Call) -> web.StreamResponse:
    """``PUT /containers/{id}/archive``."""
    path = _path(call)
    await call.accept_body()
    await call.engine.containers.archive_put(
        call.name,
        path,
        call.request.content.iter_any(),
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
