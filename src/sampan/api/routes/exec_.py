"""Exec: further programs in a running container."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from aiohttp import web
from msgspec import structs

from sampan.api import reply, scope
from sampan.api.call import Call
from sampan.api.frames import Deframer, frame
from sampan.api.hijack import hijack
from sampan.api.router import Effect, Route
from sampan.api.routes.lifecycle import size
from sampan.api.routes.streams import stream_type
from sampan.api.shape import complete
from sampan.engine.options import Attachment
from sampan.errors import InvalidParameter
from sampan.wire.container import IDResponse
from sampan.wire.exec import ExecCreateRequest, ExecStartRequest


async def create(call: Call) -> web.StreamResponse:
    """``POST /containers/{id}/exec``."""
    request = await call.body(ExecCreateRequest)
    if not request.cmd:
        raise InvalidParameter("No exec command specified")
    scope.check_exec(call, request)
    if not call.since(42):
        request = structs.replace(request, console_size=None)
    exec_id = await call.engine.execs.create(call.name, request)
    return reply.json(IDResponse(id=exec_id), 201)


async def start(call: Call) -> web.StreamResponse:
    """``POST /exec/{id}/start``: attached, the connection becomes the program's stdio."""
    request = await call.optional_body(ExecStartRequest)
    if not call.since(42) or not request.tty:
        # Compose tells the size of its own terminal whatever it starts.
        request = structs.replace(request, console_size=None)
    attachment = await call.engine.execs.start(call.name, request)
    if attachment is None:
        return reply.empty(200)
    return await hijack(
        call.request,
        attachment,
        stream_type(call, tty=bool(request.tty)),
        call.daemon.spool_directory,
        report_failure=True,
        reframe=_reframe(attachment, tty=bool(request.tty)),
    )


def _reframe(attachment: Attachment, *, tty: bool) -> Callable[[bytes], bytes] | None:
    """Framed or not is what the start says, whatever the program was created with."""
    if attachment.tty == tty:
        return None
    return Deframer().feed if tty else partial(frame, 1)


async def inspect(call: Call) -> web.StreamResponse:
    """``GET /exec/{id}/json``."""
    return reply.json(complete(await call.engine.execs.inspect(call.name)))


async def resize(call: Call) -> web.StreamResponse:
    """``POST /exec/{id}/resize``."""
    height, width = size(call)
    await call.engine.execs.resize(call.name, height, width)
    return reply.empty(200)


ROUTES = (
    Route(method="POST", pattern="/containers/{name}/exec", handler=create, effect=Effect.WRITE),
    Route(method="POST", pattern="/exec/{name}/start", handler=start, effect=Effect.STREAM),
    Route(method="GET", pattern="/exec/{name}/json", handler=inspect, effect=Effect.READ),
    Route(method="POST", pattern="/exec/{name}/resize", handler=resize, effect=Effect.WRITE),
)
