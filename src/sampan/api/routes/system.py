"""The daemon itself: ping, version, information, disk usage, events, credentials."""

from __future__ import annotations

from collections.abc import AsyncIterator

from aiohttp import web
from msgspec import json, structs, to_builtins

from sampan.api import body, gate, query, reply
from sampan.api.call import Call
from sampan.api.router import Effect, Route
from sampan.api.shape import complete
from sampan.api.version import CURRENT, MINIMUM
from sampan.errors import InvalidParameter
from sampan.wire.image import AuthConfig

_KINDS = ("container", "image", "volume", "build-cache")
_EVENT_FILTERS = (
    "config",
    "container",
    "daemon",
    "event",
    "image",
    "label",
    "network",
    "node",
    "plugin",
    "scope",
    "secret",
    "service",
    "type",
    "volume",
)


async def ping(call: Call) -> web.StreamResponse:
    """``GET|HEAD /_ping``: also what clients negotiate the version from."""
    response = reply.text("OK" if call.request.method == "GET" else "")
    response.headers.update(
        {
            "Builder-Version": "2" if call.daemon.buildkit else "1",
            "Swarm": "inactive",
            "Cache-Control": "no-cache, no-store, must-revalidate",
            "Pragma": "no-cache",
        }
    )
    return response


async def version(call: Call) -> web.StreamResponse:
    """``GET /version``."""
    found = await call.engine.system.version()
    answer = structs.replace(
        found,
        api_version=str(CURRENT),
        min_api_version=str(MINIMUM),
        components=[
            structs.replace(
                component,
                details={
                    **(component.details or {}),
                    "ApiVersion": str(CURRENT),
                    "MinAPIVersion": str(MINIMUM),
                },
            )
            if component.name == "Engine"
            else component
            for component in found.components or []
        ],
    )
    return reply.json(complete(answer))


async def info(call: Call) -> web.StreamResponse:
    """``GET /info``."""
    found = complete(await call.engine.system.info())
    found["Warnings"] = [*(found["Warnings"] or ()), *call.daemon.warnings] or None
    answer = gate.info_answer(found, call.version)
    if call.daemon.authorization is not None:
        answer["Plugins"]["Authorization"] = list(call.daemon.authorization.names)
    return reply.json(answer)


async def disk_usage(call: Call) -> web.StreamResponse:
    """``GET /system/df``."""
    asked = call.texts("type") if call.since(42) else []
    for kind in asked:
        if kind not in _KINDS:
            raise InvalidParameter(f"unknown object type: {kind}")
    chosen = set(asked or _KINDS)
    verbose = call.flag("verbose")
    usage = complete(await call.engine.system.df(sorted(chosen)))
    return reply.json(gate.disk_usage_answer(usage, call.version, chosen, verbose=verbose))


async def events(call: Call) -> web.StreamResponse:
    """``GET /events``: history and live messages until the client goes or ``until`` is reached."""
    chosen = call.filters(*_EVENT_FILTERS)
    since = call.timestamp("since") if call.text("since") else None
    until = call.timestamp("until") if call.text("until") else None
    if since is not None and until is not None and until < since:
        raise InvalidParameter("`since` time cannot be after `until` time")
    media_type, before, after = _event_format(call)
    source = await call.engine.events.subscribe(since, until, chosen)

    async def lines() -> AsyncIterator[bytes]:
        async with reply.closing(source):
            async for message in source:
                answer = gate.event_answer(to_builtins(message), call.version)
                yield before + json.encode(answer) + after

    return await reply.stream(call.request, lines(), media_type)


def _event_format(call: Call) -> tuple[str, bytes, bytes]:
    """Media type of the stream and what stands before and after each message."""
    accepted = call.request.headers.get("Accept", "")
    if call.since(52) and "application/json-seq" in accepted:
        return "application/json-seq", b"\x1e", b"\n"
    if call.since(53) and "application/jsonl" in accepted:
        return "application/jsonl", b"", b"\n"
    if call.since(52) and "application/x-ndjson" in accepted:
        return "application/x-ndjson", b"", b"\n"
    return reply.JSON, b"", b"\n"


async def auth(call: Call) -> web.StreamResponse:
    """``POST /auth``."""
    raw = body.decode_json(await call.raw_body())
    found = query.credentials(raw, "credentials")
    answer = await call.engine.system.auth(
        AuthConfig(
            username=found.username,
            password=found.password,
            serveraddress=found.server_address,
            identitytoken=found.identity_token or None,
        )
    )
    return reply.json(complete(answer))


ROUTES = (
    Route(method="GET", pattern="/_ping", handler=ping, effect=Effect.READ),
    Route(method="HEAD", pattern="/_ping", handler=ping, effect=Effect.READ),
    Route(method="GET", pattern="/version", handler=version, effect=Effect.READ),
    Route(method="GET", pattern="/info", handler=info, effect=Effect.READ),
    Route(method="GET", pattern="/system/df", handler=disk_usage, effect=Effect.READ),
    Route(method="GET", pattern="/events", handler=events, effect=Effect.READ),
    Route(method="POST", pattern="/auth", handler=auth, effect=Effect.WRITE),
)
