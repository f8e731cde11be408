"""Images as objects: list, inspect, history, tag, remove, search, registry look-ups."""

from __future__ import annotations

from aiohttp import web

from sampan.api import gate, query, reply
from sampan.api.call import Call
from sampan.api.legacyimage import step_command
from sampan.api.router import Effect, Route
from sampan.api.shape import complete
from sampan.api.version import ApiVersion
from sampan.errors import InvalidParameter, Unsupported

_LIST_FILTERS = (
    "before",
    "dangling",
    "label",
    "label!",
    "reference",
    "since",
    "until",
)


async def list_(call: Call) -> web.StreamResponse:
    """``GET /images/json``."""
    chosen = query.filters(call.request.query.get("filters"), _LIST_FILTERS)
    query.boolean_filter(chosen, "dangling")
    if not call.since(41) and call.text("filter"):
        chosen["reference"] = [call.text("filter")]
    found = await call.engine.images.list(
        all=call.flag("all"),
        filters=chosen,
        shared_size=call.flag("shared-size") and call.since(42),
        digests=call.flag("digests"),
        # An identity is shown with the manifests; none of ours has been attested one.
        manifests=(call.flag("manifests") and call.since(47))
        or (call.flag("identity") and call.since(54)),
    )
    return reply.json([gate.image_summary_answer(item, call.version) for item in complete(found)])


async def inspect(call: Call) -> web.StreamResponse:
    """``GET /images/{name}/json``."""
    manifests = call.flag("manifests") and call.since(48)
    platform = call.platform() if call.since(49) else ""
    if manifests and platform:
        raise InvalidParameter("conflicting options: manifests and platform options cannot be used")
    found = await call.engine.images.inspect(
        call.name, manifests=manifests, platform=platform or None
    )
    answer = gate.image_answer(complete(found), call.version)
    if not call.since(45):
        steps = await call.engine.images.history(call.name, platform or None)
        command = step_command(steps[0].created_by or "") if steps else None
        answer["ContainerConfig"] = {**answer["Config"], "Cmd": command or answer["Config"]["Cmd"]}
    return reply.json(answer)


async def history(call: Call) -> web.StreamResponse:
    """``GET /images/{name}/history``."""
    platform = call.platform() if call.since(48) else ""
    return reply.json(complete(await call.engine.images.history(call.name, platform or None)))


async def layers(call: Call) -> web.StreamResponse:
    """``GET /images/{name}/layers`` (not Docker's)."""
    return reply.json(await call.engine.images.layers(call.name, call.platform() or None))


async def changes(call: Call) -> web.StreamResponse:
    """``GET /images/{name}/changes`` (not Docker's)."""
    return reply.json(complete(await call.engine.images.changes(call.name, call.text("since"))))


async def mount(call: Call) -> web.StreamResponse:
    """``POST /images/{name}/mount`` (not Docker's)."""
    return reply.json(await call.engine.images.mount(call.name))


async def unmount(call: Call) -> web.StreamResponse:
    """``POST /images/{name}/unmount`` (not Docker's)."""
    await call.engine.images.unmount(call.name)
    return reply.empty(204)


async def missing(call: Call) -> web.StreamResponse:
    """``GET /images/missing`` (not Docker's)."""
    return reply.json(await call.engine.images.missing(call.texts("digest")))


async def tag(call: Call) -> web.StreamResponse:
    """``POST /images/{name}/tag``."""
    repo = call.text("repo")
    if not repo:
        raise InvalidParameter("repo: the new name is required")
    await call.engine.images.tag(call.name, repo, call.text("tag"))
    return reply.empty(201)


async def remove(call: Call) -> web.StreamResponse:
    """``DELETE /images/{name}``."""
    if not call.name.strip():
        raise InvalidParameter("image name cannot be blank")
    removed = await call.engine.images.remove(
        call.name,
        force=call.flag("force"),
        noprune=call.flag("noprune"),
        platforms=call.platforms("platforms") if call.since(50) else [],
    )
    return reply.json(complete(removed))


async def prune(call: Call) -> web.StreamResponse:
    """``POST /images/prune``."""
    chosen = query.filters(
        call.request.query.get("filters"), ("dangling", "until", "label", "label!")
    )
    query.boolean_filter(chosen, "dangling")
    return reply.json(complete(await call.engine.images.prune(chosen)))


async def search(call: Call) -> web.StreamResponse:
    """``GET /images/search``."""
    term = call.text("term")
    if not term:
        raise InvalidParameter("term: a search term is required")
    limit = call.optional_integer("limit")
    if limit is not None and not 1 <= limit <= 100:
        raise InvalidParameter(f"limit {limit} is outside the range of [1, 100]")
    found = await call.engine.images.search(
        term,
        limit=limit,
        filters=query.filters(
            call.request.query.get("filters"), ("is-official", "is-automated", "stars")
        ),
        auth=call.registry_auth(),
    )
    return reply.json(complete(found))


async def attestations(call: Call) -> web.StreamResponse:
    """``GET /images/{name}/attestations``."""
    await call.engine.images.inspect(call.name)
    raise Unsupported("attestations are not kept by this image store")


async def distribution(call: Call) -> web.StreamResponse:
    """``GET /distribution/{name}/json``."""
    found = await call.engine.images.distribution(call.name, call.registry_auth())
    return reply.json(complete(found))


_ONE = "/images/{name:*}"
ROUTES = (
    Route(method="GET", pattern="/images/json", handler=list_, effect=Effect.READ),
    Route(method="GET", pattern="/images/search", handler=search, effect=Effect.READ),
    Route(method="POST", pattern="/images/prune", handler=prune, effect=Effect.WRITE),
    Route(method="GET", pattern="/images/missing", handler=missing, effect=Effect.READ),
    Route(method="GET", pattern=f"{_ONE}/layers", handler=layers, effect=Effect.READ),
    Route(method="GET", pattern=f"{_ONE}/changes", handler=changes, effect=Effect.READ),
    Route(method="POST", pattern=f"{_ONE}/mount", handler=mount, effect=Effect.WRITE),
    Route(method="POST", pattern=f"{_ONE}/unmount", handler=unmount, effect=Effect.WRITE),
    Route(method="GET", pattern=f"{_ONE}/json", handler=inspect, effect=Effect.READ),
    Route(method="GET", pattern=f"{_ONE}/history", handler=history, effect=Effect.READ),
    Route(
        method="GET",
        pattern=f"{_ONE}/attestations",
        handler=attestations,
        effect=Effect.READ,
        since=ApiVersion(1, 55),
    ),
    Route(method="POST", pattern=f"{_ONE}/tag", handler=tag, effect=Effect.WRITE),
    Route(method="DELETE", pattern=_ONE, handler=remove, effect=Effect.WRITE),
    Route(
        method="GET",
        pattern="/distribution/{name:*}/json",
        handler=distribution,
        effect=Effect.READ,
        since=ApiVersion(1, 30),
    ),
)
