"""Containers as objects: list, create, inspect, change, remove."""

from __future__ import annotations

from aiohttp import web
from msgspec import structs

from sampan.api import body, gate, reply, scope
from sampan.api.call import Call
from sampan.api.router import Effect, Route
from sampan.api.shape import complete
from sampan.engine.options import CommitOptions
from sampan.errors import InvalidParameter
from sampan.wire.container import (
    ContainerConfig,
    ContainerCreateRequest,
    ContainerUpdateRequest,
)

_LIST_FILTERS = (
    "ancestor",
    "before",
    "expose",
    "exited",
    "health",
    "id",
    "isolation",
    "is-task",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
)


async def list_(call: Call) -> web.StreamResponse:
    """``GET /containers/json``."""
    limit = call.optional_integer("limit")
    found = await call.engine.containers.list(
        all=call.flag("all"),
        limit=limit if limit is not None and limit > 0 else None,
        size=call.flag("size"),
        filters=call.filters(*_LIST_FILTERS),
    )
    return reply.json([gate.summary_answer(item, call.version) for item in complete(found)])


async def create(call: Call) -> web.StreamResponse:
    """``POST /containers/create``."""
    raw = await call.raw_body()
    request = body.decode(raw, ContainerCreateRequest)
    _check_config(request)
    request = gate.create_request(request, call.version)
    await scope.check_container(call, request)
    host = request.host_config
    if call.client is None and host is not None and "keep-id" in (host.userns_mode or ""):
        raise InvalidParameter(
            "user namespace mode keep-id: only a client on a Unix socket has an id to keep"
        )
    request = structs.replace(request, labels=call.access.labelled(request.labels))
    created = await call.engine.containers.create(
        request,
        call.text("name") or None,
        call.platform() or None,
        client=call.client,
        read_only_recursive=call.since(44),
        volume_labels=call.access.labelled(None),
    )
    warnings = [*(created.warnings or []), *gate.create_warnings(request, call.version)]
    return reply.json(complete(structs.replace(created, warnings=warnings)), 201)


def _check_config(request: ContainerCreateRequest) -> None:
    fields = (field.name for field in structs.fields(ContainerConfig))
    if all(getattr(request, name) is None for name in fields):
        raise InvalidParameter("config cannot be empty in order to create a container")


async def inspect(call: Call) -> web.StreamResponse:
    """``GET /containers/{id}/json``."""
    found = await call.engine.containers.inspect(call.name, size=call.flag("size"))
    return reply.json(gate.container_answer(complete(found), call.version))


async def update(call: Call) -> web.StreamResponse:
    """``POST /containers/{id}/update``."""
    request = await call.body(ContainerUpdateRequest)
    if not call.since(40):
        request = structs.replace(request, pids_limit=None)
    if not call.since(55):
        request = structs.replace(
            request,
            blkio_weight_device=None,
            blkio_device_read_bps=None,
            blkio_device_write_bps=None,
            blkio_device_read_i_ops=None,
            blkio_device_write_i_ops=None,
        )
    return reply.json(complete(await call.engine.containers.update(call.name, request)))


async def rename(call: Call) -> web.StreamResponse:
    """``POST /containers/{id}/rename``."""
    name = call.text("name")
    if not name.strip("/"):
        raise InvalidParameter("Neither old nor new names may be empty")
    await call.engine.containers.rename(call.name, name)
    return reply.empty()


async def remove(call: Call) -> web.StreamResponse:
    """``DELETE /containers/{id}``."""
    await call.engine.containers.remove(
        call.name, force=call.flag("force"), volumes=call.flag("v"), link=call.flag("link")
    )
    return reply.empty()


async def prune(call: Call) -> web.StreamResponse:
    """``POST /containers/prune``."""
    chosen = call.filters("until", "label", "label!")
    return reply.json(complete(await call.engine.containers.prune(chosen)))


async def top(call: Call) -> web.StreamResponse:
    """``GET /containers/{id}/top``."""
    found = await call.engine.containers.top(call.name, call.text("ps_args") or "-ef")
    return reply.json(complete(found))


async def denials(call: Call) -> web.StreamResponse:
    """``GET /sampan/containers/{id}/denials``: what its seccomp profile acted on."""
    return reply.json(await call.engine.containers.denials(call.name))


async def changes(call: Call) -> web.StreamResponse:
    """``GET /containers/{id}/changes``."""
    found = complete(await call.engine.containers.changes(call.name))
    return reply.json(found or None)


async def commit(call: Call) -> web.StreamResponse:
    """``POST /commit``."""
    raw = (await call.raw_body(required=False)).strip()
    config = body.decode(raw, ContainerConfig) if raw not in (b"", b"null") else ContainerConfig()
    container = call.text("container")
    if not container:
        raise InvalidParameter("container: a container name or id is required")
    options = CommitOptions(
        repo=call.text("repo"),
        tag=call.text("tag"),
        comment=call.text("comment"),
        author=call.text("author"),
        pause=call.flag("pause", default=True),
        changes=tuple(call.texts("changes")),
        config=None if config == ContainerConfig() else config,
    )
    return reply.json(complete(await call.engine.containers.commit(container, options)), 201)


_ONE = "/containers/{name}"
ROUTES = (
    Route(method="GET", pattern="/containers/json", handler=list_, effect=Effect.READ),
    Route(method="POST", pattern="/containers/create", handler=create, effect=Effect.WRITE),
    Route(method="POST", pattern="/containers/prune", handler=prune, effect=Effect.WRITE),
    Route(method="GET", pattern=f"{_ONE}/json", handler=inspect, effect=Effect.READ),
    Route(method="GET", pattern=f"/sampan{_ONE}/denials", handler=denials, effect=Effect.READ),
    Route(method="GET", pattern=f"{_ONE}/top", handler=top, effect=Effect.READ),
    Route(method="GET", pattern=f"{_ONE}/changes", handler=changes, effect=Effect.READ),
    Route(method="POST", pattern=f"{_ONE}/update", handler=update, effect=Effect.WRITE),
    Route(method="POST", pattern=f"{_ONE}/rename", handler=rename, effect=Effect.WRITE),
    Route(method="DELETE", pattern=_ONE, handler=remove, effect=Effect.WRITE),
    Route(method="POST", pattern="/commit", handler=commit, effect=Effect.WRITE),
)
