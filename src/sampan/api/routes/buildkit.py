"""BuildKit's doors: connections on which gRPC is spoken from then on (API v1.55, "Session")."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from sampan.api.call import Call
from sampan.api.hijack import upgrade
from sampan.api.router import Effect, Route
from sampan.errors import InvalidParameter

if TYPE_CHECKING:
    from sampan.buildkit.service import BuildKit

_PROTOCOL = "h2c"


def buildkit_of(call: Call) -> BuildKit:
    """The daemon's BuildKit, made when it is first wanted: most daemons never load gRPC."""
    from sampan.buildkit.service import BuildKit

    daemon = call.daemon
    if daemon.buildkit_service is None:
        daemon.buildkit_service = BuildKit.of(call.engine)
    return daemon.buildkit_service


def _check(call: Call) -> None:
    asked = call.request.headers.get("Upgrade", "")
    if not asked:
        raise InvalidParameter("no upgrade proto in request")
    if asked.lower() != _PROTOCOL:
        raise InvalidParameter(f"protocol {asked} not supported")


async def grpc(call: Call) -> web.StreamResponse:
    """``POST /grpc``: the client calls BuildKit's services."""
    _check(call)
    return await upgrade(call.request, buildkit_of(call).control(), _PROTOCOL)


async def session(call: Call) -> web.StreamResponse:
    """``POST /session``: the daemon calls the client's services while it builds."""
    _check(call)
    service = buildkit_of(call)
    from sampan.buildkit.service import METHOD_HEADER

    headers = call.request.headers
    opened = await service.session(headers, headers.getall(METHOD_HEADER, []))
    try:
        return await upgrade(call.request, opened.channel.protocol, _PROTOCOL)
    finally:
        service.end(opened)


ROUTES = (
    Route(method="POST", pattern="/session", handler=session, effect=Effect.STREAM),
    Route(method="POST", pattern="/grpc", handler=grpc, effect=Effect.STREAM),
)
