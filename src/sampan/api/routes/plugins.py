"""Managed plugins: there are none, and none can be installed."""

from __future__ import annotations

from aiohttp import web

from sampan.api import body, query, reply
from sampan.api.call import Call
from sampan.api.router import Effect, Route
from sampan.errors import InvalidParameter, NotFound, Unsupported
from sampan.model.reference import Reference


async def list_(call: Call) -> web.StreamResponse:
    """``GET /plugins``."""
    query.filters(call.request.query.get("filters"), ("capability", "enable", "enabled"))
    return reply.json([])


async def missing(call: Call) -> web.StreamResponse:
    """Any request about one plugin."""
    raise NotFound(f'plugin "{call.name}" not found')


async def configure(call: Call) -> web.StreamResponse:
    """Requests about one plugin whose body, bounded and well-formed, is a JSON list."""
    await _list_body(call)
    return await missing(call)


async def pull(call: Call) -> web.StreamResponse:
    """``POST /plugins/pull``."""
    await _list_body(call)
    Reference.parse(call.text("remote"))
    return await install(call)


async def _list_body(call: Call) -> None:
    raw = await call.raw_body(required=False)
    if raw and not isinstance(body.decode_json(raw), list | None):
        raise InvalidParameter("invalid JSON: expected a list")


async def install(call: Call) -> web.StreamResponse:
    """Requests that would bring a plugin in."""
    raise Unsupported("managed plugins are not supported by this daemon")


_ONE = "/plugins/{name:*}"
ROUTES = (
    Route(method="GET", pattern="/plugins", handler=list_, effect=Effect.READ),
    Route(method="GET", pattern="/plugins/privileges", handler=install, effect=Effect.READ),
    Route(method="POST", pattern="/plugins/pull", handler=pull, effect=Effect.WRITE),
    Route(method="POST", pattern="/plugins/create", handler=install, effect=Effect.WRITE),
    Route(method="GET", pattern=f"{_ONE}/json", handler=missing, effect=Effect.READ),
    *(
        Route(method="POST", pattern=f"{_ONE}/{verb}", handler=missing, effect=Effect.WRITE)
        for verb in ("enable", "disable", "push")
    ),
    *(
        Route(method="POST", pattern=f"{_ONE}/{verb}", handler=configure, effect=Effect.WRITE)
        for verb in ("upgrade", "set")
    ),
    Route(method="DELETE", pattern=_ONE, handler=missing, effect=Effect.WRITE),
)
