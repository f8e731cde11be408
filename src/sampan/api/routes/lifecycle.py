"""Containers as processes: start, stop, signals, wait, terminal size."""

from __future__ import annotations

from aiohttp import web
from msgspec import json

from sampan.api import reply
from sampan.api.call import Call
from sampan.api.router import Effect, Route
from sampan.api.shape import complete
from sampan.errors import InvalidParameter, Unsupported

_CONDITIONS = ("not-running", "next-exit", "removed")


async def start(call: Call) -> web.StreamResponse:
    """``POST /containers/{id}/start``."""
    if call.text("checkpoint"):
        raise Unsupported("checkpoint: starting from a checkpoint is not supported")
    if (await call.raw_body(required=False)).strip() not in (b"", b"{}", b"null"):
        raise InvalidParameter("starting container with non-empty request body was removed in 1.24")
    await call.engine.containers.start(call.name)
    return reply.empty()


async def init(call: Call) -> web.StreamResponse:
    """``POST /sampan/containers/{id}/init``: set up what a start does, let the program wait."""
    await call.engine.containers.init(call.name)
    return reply.empty()


async def stop(call: Call) -> web.StreamResponse:
    """``POST /containers/{id}/stop``."""
    await call.engine.containers.stop(call.name, _signal(call), call.optional_integer("t"))
    return reply.empty()


async def restart(call: Call) -> web.StreamResponse:
    """``POST /containers/{id}/restart``."""
    await call.engine.containers.restart(call.name, _signal(call), call.optional_integer("t"))
    return reply.empty()


def _signal(call: Call) -> str | None:
    return (call.text("signal") or None) if call.since(42) else None


async def kill(call: Call) -> web.StreamResponse:
    """``POST /containers/{id}/kill``."""
    await call.engine.containers.kill(call.name, call.text("signal") or "KILL")
    return reply.empty()


async def pause(call: Call) -> web.StreamResponse:
    """``POST /containers/{id}/pause``."""
    await call.engine.containers.pause(call.name)
    return reply.empty()


async def unpause(call: Call) -> web.StreamResponse:
    """``POST /containers/{id}/unpause``."""
    await call.engine.containers.unpause(call.name)
    return reply.empty()


async def wait(call: Call) -> web.StreamResponse:
    """``POST /containers/{id}/wait``: headers at once, the body when it is over.

    ``docker run`` starts the container only after it has seen the headers.
    """
    condition = (call.text("condition") if call.since(30) else "") or "not-running"
    if condition not in _CONDITIONS:
        raise InvalidParameter(f'invalid condition: "{condition}"')
    waiting = await call.engine.containers.wait(call.name, condition)
    if not call.since(30):
        return reply.json(complete(await waiting))
    response = reply.stream_headers(reply.JSON)
    await response.prepare(call.request)
    answer = complete(await waiting)
    await response.write(json.encode(answer) + b"\n")
    await response.write_eof()
    return response


async def resize(call: Call) -> web.StreamResponse:
    """``POST /containers/{id}/resize``."""
    height, width = size(call)
    await call.engine.containers.resize(call.name, height, width)
    return reply.empty(200)


def size(call: Call) -> tuple[int, int]:
    """The ``h`` and ``w`` parameters, in character cells."""
    found: list[int] = []
    for name in ("h", "w"):
        text = call.text(name)
        what = {"h": "height", "w": "width"}[name]
        try:
            value = int(text)
        except ValueError:
            raise InvalidParameter(f'invalid resize {what} "{text}": invalid syntax') from None
        if not 0 <= value <= 0xFFFF:
            raise InvalidParameter(f'invalid resize {what} "{text}": value out of range')
        found.append(value)
    return found[0], found[1]


async def checkpoints(call: Call) -> web.StreamResponse:
    """``/containers/{id}/checkpoints``: an experimental feature of dockerd."""
    raise Unsupported(
        "This experimental feature is disabled by default. Start the Docker daemon in "
        "experimental mode in order to enable it."
    )


_ONE = "/containers/{name}"
ROUTES = (
    Route(method="POST", pattern=f"{_ONE}/start", handler=start, effect=Effect.WRITE),
    Route(method="POST", pattern=f"/sampan{_ONE}/init", handler=init, effect=Effect.WRITE),
    Route(method="POST", pattern=f"{_ONE}/stop", handler=stop, effect=Effect.WRITE),
    Route(method="POST", pattern=f"{_ONE}/restart", handler=restart, effect=Effect.WRITE),
    Route(method="POST", pattern=f"{_ONE}/kill", handler=kill, effect=Effect.WRITE),
    Route(method="POST", pattern=f"{_ONE}/pause", handler=pause, effect=Effect.WRITE),
    Route(method="POST", pattern=f"{_ONE}/unpause", handler=unpause, effect=Effect.WRITE),
    Route(method="POST", pattern=f"{_ONE}/wait", handler=wait, effect=Effect.READ),
    Route(method="POST", pattern=f"{_ONE}/resize", handler=resize, effect=Effect.WRITE),
    Route(method="GET", pattern=f"{_ONE}/checkpoints", handler=checkpoints, effect=Effect.READ),
    Route(method="POST", pattern=f"{_ONE}/checkpoints", handler=checkpoints, effect=Effect.WRITE),
    Route(
        method="DELETE",
        pattern=f"{_ONE}/checkpoints/{{checkpoint}}",
        handler=checkpoints,
        effect=Effect.WRITE,
    ),
)
