"""Volumes."""

from __future__ import annotations

from aiohttp import web
from msgspec import structs

from sampan.api import query, reply, scope
from sampan.api.call import Call
from sampan.api.router import Effect, Route
from sampan.api.routes.swarm import not_a_manager
from sampan.api.shape import complete
from sampan.api.version import ApiVersion
from sampan.wire.volume import VolumeCreateRequest


async def list_(call: Call) -> web.StreamResponse:
    """``GET /volumes``."""
    chosen = call.filters("dangling", "driver", "label", "name")
    query.boolean_filter(chosen, "dangling")
    return reply.json(complete(await call.engine.volumes.list(chosen)))


async def inspect(call: Call) -> web.StreamResponse:
    """``GET /volumes/{name}``."""
    return reply.json(complete(await call.engine.volumes.inspect(call.name)))


async def create(call: Call) -> web.StreamResponse:
    """``POST /volumes/create``."""
    request = await call.body(VolumeCreateRequest)
    if request.cluster_volume_spec is not None:
        raise not_a_manager()
    scope.check_volume(call, request)
    request = structs.replace(request, labels=call.access.labelled(request.labels))
    return reply.json(complete(await call.engine.volumes.create(request)), 201)


async def update(call: Call) -> web.StreamResponse:
    """``PUT /volumes/{name}``: only cluster volumes can be updated."""
    raise not_a_manager()


async def remove(call: Call) -> web.StreamResponse:
    """``DELETE /volumes/{name}``."""
    await call.engine.volumes.remove(call.name, force=call.flag("force"))
    return reply.empty()


async def prune(call: Call) -> web.StreamResponse:
    """``POST /volumes/prune``; before API 1.42 named volumes were pruned as well."""
    chosen = call.filters("all", "label", "label!")
    query.boolean_filter(chosen, "all")
    if not call.since(42):
        chosen["all"] = ["true"]
    return reply.json(complete(await call.engine.volumes.prune(chosen)))


_ONE = "/volumes/{name}"
ROUTES = (
    Route(method="GET", pattern="/volumes", handler=list_, effect=Effect.READ),
    Route(method="POST", pattern="/volumes/create", handler=create, effect=Effect.WRITE),
    Route(method="POST", pattern="/volumes/prune", handler=prune, effect=Effect.WRITE),
    Route(method="GET", pattern=_ONE, handler=inspect, effect=Effect.READ),
    Route(method="PUT", pattern=_ONE, handler=update, effect=Effect.WRITE, since=ApiVersion(1, 42)),
    Route(method="DELETE", pattern=_ONE, handler=remove, effect=Effect.WRITE),
)
