"""Building images and the cache that building leaves behind."""

from __future__ import annotations

from aiohttp import web

from sampan.api import query, reply
from sampan.api.call import Call
from sampan.api.router import Effect, Route
from sampan.api.shape import complete
from sampan.api.version import ApiVersion
from sampan.errors import InvalidParameter, Unsupported
from sampan.wire.image import BuildPruneReport

_PRUNE_FILTERS = ("until", "id", "parent", "type", "description", "inuse", "shared", "private")


async def build(call: Call) -> web.StreamResponse:
    """``POST /build``."""
    raise Unsupported("this daemon does not build images yet")


async def prune(call: Call) -> web.StreamResponse:
    """``POST /build/prune``: nothing to do while nothing is built."""
    query.filters(call.request.query.get("filters"), _PRUNE_FILTERS)
    return reply.json(complete(BuildPruneReport(space_reclaimed=0)))


async def cancel(call: Call) -> web.StreamResponse:
    """``POST /build/cancel``."""
    if not call.text("id"):
        raise InvalidParameter("build ID not provided")
    return reply.empty()


ROUTES = (
    Route(method="POST", pattern="/build", handler=build, effect=Effect.STREAM),
    Route(
        method="POST",
        pattern="/build/prune",
        handler=prune,
        effect=Effect.WRITE,
        since=ApiVersion(1, 31),
    ),
    Route(method="POST", pattern="/build/cancel", handler=cancel, effect=Effect.WRITE),
)
