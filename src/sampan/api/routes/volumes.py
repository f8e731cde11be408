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
from sampan.errors import InvalidParameter
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


async def rename(call: Call) -> web.StreamResponse:
    """``POST /volumes/{name}/rename``: ours alone, as are the next three."""
    return reply.json(complete(await call.engine.volumes.rename(call.name, _new_name(call))))


async def snapshot(call: Call) -> web.StreamResponse:
    """``POST /volumes/{name}/snapshot``: a new volume with what this one holds."""
    request = await call.body(VolumeCreateRequest)
    if not request.name:
        raise InvalidParameter("the snapshot needs a name")
    labels = request.labels
    if labels is None:
        labels = (await call.engine.volumes.inspect(call.name)).labels
    labels = call.access.labelled(labels)
    return reply.json(
        complete(await call.engine.volumes.snapshot(call.name, request.name, labels)), 201
    )


async def export(call: Call) -> web.StreamResponse:
    """``GET /volumes/{name}/export``: what the volume holds, as tar."""
    source = await call.engine.volumes.export(call.name)
    return await reply.stream(call.request, source, "application/x-tar")


async def import_(call: Call) -> web.StreamResponse:
    """``POST /volumes/{name}/import``: extract a tar into the volume."""
    await call.accept_body()
    await call.engine.volumes.import_(call.name, call.stream())
    return reply.empty(200)


def _new_name(call: Call) -> str:
    name = call.text("name")
    if not name:
        raise InvalidParameter("the new name is missing")
    return name


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
    Route(method="POST", pattern=f"{_ONE}/rename", handler=rename, effect=Effect.WRITE),
    Route(method="POST", pattern=f"{_ONE}/snapshot", handler=snapshot, effect=Effect.WRITE),
    Route(method="GET", pattern=f"{_ONE}/export", handler=export, effect=Effect.READ),
    Route(method="POST", pattern=f"{_ONE}/import", handler=import_, effect=Effect.STREAM),
)
