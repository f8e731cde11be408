"""Networks."""

from __future__ import annotations

from aiohttp import web
from msgspec import structs

from sampan.api import gate, query, reply, scope
from sampan.api.call import Call
from sampan.api.router import Effect, Route
from sampan.api.shape import complete
from sampan.errors import InvalidParameter
from sampan.wire.network import (
    NetworkConnectRequest,
    NetworkCreateRequest,
    NetworkDisconnectRequest,
)


async def list_(call: Call) -> web.StreamResponse:
    """``GET /networks``; up to API 1.27 with the containers on each."""
    chosen = call.filters("dangling", "driver", "id", "label", "name", "scope", "type")
    query.boolean_filter(chosen, "dangling")
    found = complete(await call.engine.networks.list(chosen))
    if not call.since(28):
        found = [complete(await call.engine.networks.inspect(item["Id"])) for item in found]
    return reply.json([gate.network_answer(item, call.version) for item in found])


async def inspect(call: Call) -> web.StreamResponse:
    """``GET /networks/{id}``."""
    found = await call.engine.networks.inspect(
        call.name, verbose=call.flag("verbose"), scope=call.text("scope")
    )
    return reply.json(gate.network_answer(complete(found), call.version))


async def create(call: Call) -> web.StreamResponse:
    """``POST /networks/create``."""
    request = await call.body(NetworkCreateRequest)
    if not call.since(48):
        request = structs.replace(request, enable_ipv4=None)
    scope.check_network(call, request)
    request = structs.replace(request, labels=call.access.labelled(request.labels))
    return reply.json(complete(await call.engine.networks.create(request)), 201)


async def remove(call: Call) -> web.StreamResponse:
    """``DELETE /networks/{id}``."""
    await call.engine.networks.remove(call.name)
    return reply.empty()


async def connect(call: Call) -> web.StreamResponse:
    """``POST /networks/{id}/connect``."""
    request = await call.body(NetworkConnectRequest)
    if not request.container:
        raise InvalidParameter('invalid name or ID supplied: ""')
    if not call.since(44) and request.endpoint_config is not None:
        endpoint = structs.replace(request.endpoint_config, mac_address=None)
        request = structs.replace(request, endpoint_config=endpoint)
    await call.engine.networks.connect(call.name, request)
    return reply.empty(200)


async def disconnect(call: Call) -> web.StreamResponse:
    """``POST /networks/{id}/disconnect``."""
    request = await call.body(NetworkDisconnectRequest)
    if not request.container:
        raise InvalidParameter('invalid name or ID supplied: ""')
    await call.engine.networks.disconnect(call.name, request)
    return reply.empty(200)


async def prune(call: Call) -> web.StreamResponse:
    """``POST /networks/prune``."""
    chosen = call.filters("until", "label", "label!")
    return reply.json(complete(await call.engine.networks.prune(chosen)))


_ONE = "/networks/{name}"
ROUTES = (
    Route(method="GET", pattern="/networks", handler=list_, effect=Effect.READ),
    Route(method="GET", pattern="/networks/", handler=list_, effect=Effect.READ),
    Route(method="POST", pattern="/networks/create", handler=create, effect=Effect.WRITE),
    Route(method="POST", pattern="/networks/prune", handler=prune, effect=Effect.WRITE),
    Route(method="GET", pattern=_ONE, handler=inspect, effect=Effect.READ),
    Route(method="DELETE", pattern=_ONE, handler=remove, effect=Effect.WRITE),
    Route(method="POST", pattern=f"{_ONE}/connect", handler=connect, effect=Effect.WRITE),
    Route(method="POST", pattern=f"{_ONE}/disconnect", handler=disconnect, effect=Effect.WRITE),
)
