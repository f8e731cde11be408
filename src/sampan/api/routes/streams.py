"""A container's output and input: attach, logs, stats."""

from __future__ import annotations

from collections.abc import AsyncIterator

from aiohttp import web
from msgspec import json

from sampan.api import reply, websocket
from sampan.api.call import Call
from sampan.api.hijack import hijack
from sampan.api.router import Effect, Route
from sampan.api.shape import complete
from sampan.engine.options import AttachOptions, LogsOptions
from sampan.errors import InvalidParameter, SampanError


def stream_type(call: Call, *, tty: bool) -> str:
    """Media type of an output stream."""
    return reply.MULTIPLEXED_STREAM if call.since(42) and not tty else reply.RAW_STREAM


async def attach(call: Call) -> web.StreamResponse:
    """``POST /containers/{id}/attach``: the connection becomes the container's stdio."""
    try:
        attachment = await call.engine.containers.attach(call.name, _attach_options(call))
    except SampanError as problem:  # told on the stream it would have been, as by dockerd
        return reply.text(f"{problem.message}\r\n", reply.RAW_STREAM, problem.http_status)
    return await hijack(
        call.request,
        attachment,
        stream_type(call, tty=attachment.tty),
        call.daemon.spool_directory,
    )


async def attach_websocket(call: Call) -> web.StreamResponse:
    """``GET /containers/{id}/attach/ws``."""
    options = _attach_options(call)
    if not call.since(42):
        options = AttachOptions(
            stdin=True,
            stdout=True,
            stderr=True,
            logs=options.logs,
            stream=options.stream,
            detach_keys=options.detach_keys,
        )
    if call.request.headers.get("Upgrade", "").lower() != "websocket":
        await call.engine.containers.inspect(call.name)  # whether there is one comes first
        raise InvalidParameter("this endpoint speaks websocket only")
    attachment = await call.engine.containers.attach(call.name, options)
    return await websocket.attach(
        call.request,
        attachment,
        binary=call.since(28),
        spool_directory=call.daemon.spool_directory,
    )


def _attach_options(call: Call) -> AttachOptions:
    keys = call.text("detachKeys")
    return AttachOptions(
        stdin=call.flag("stdin"),
        stdout=call.flag("stdout"),
        stderr=call.flag("stderr"),
        logs=call.flag("logs"),
        stream=call.flag("stream"),
        **({"detach_keys": keys} if keys else {}),
    )


async def logs(call: Call) -> web.StreamResponse:
    """``GET /containers/{id}/logs``."""
    options = LogsOptions(
        stdout=call.flag("stdout"),
        stderr=call.flag("stderr"),
        since=call.timestamp("since"),
        until=call.timestamp("until"),
        timestamps=call.flag("timestamps"),
        tail=_tail(call),
        follow=call.flag("follow"),
        details=call.flag("details"),
    )
    if not (options.stdout or options.stderr):
        raise InvalidParameter("Bad parameters: you must choose at least one stream")
    source = await call.engine.containers.logs(call.name, options)
    return await reply.stream(call.request, source, stream_type(call, tty=source.tty))


def _tail(call: Call) -> int | None:
    """How many lines at the end; all for what is no number, as dockerd has it."""
    text = call.text("tail")
    return int(text) if text.isascii() and text.isdecimal() else None


async def stats(call: Call) -> web.StreamResponse:
    """``GET /containers/{id}/stats``."""
    streaming = call.flag("stream", default=True)
    one_shot = call.flag("one-shot") and call.since(41)
    if streaming and one_shot:
        raise InvalidParameter("cannot have stream=true and one-shot=true")
    source = await call.engine.containers.stats(call.name, stream=streaming, one_shot=one_shot)

    async def lines() -> AsyncIterator[bytes]:
        async with reply.closing(source):
            async for sample in source:
                yield json.encode(complete(sample)) + b"\n"

    return await reply.stream(call.request, lines(), reply.JSON)


_ONE = "/containers/{name}"
ROUTES = (
    Route(method="POST", pattern=f"{_ONE}/attach", handler=attach, effect=Effect.STREAM),
    Route(method="GET", pattern=f"{_ONE}/attach/ws", handler=attach_websocket, effect=Effect.READ),
    Route(method="GET", pattern=f"{_ONE}/logs", handler=logs, effect=Effect.READ),
    Route(method="GET", pattern=f"{_ONE}/stats", handler=stats, effect=Effect.READ),
)
