"""Swarm mode: answered as a dockerd answers that is not in a swarm."""

from __future__ import annotations

from aiohttp import web

from sampan.api.call import Call
from sampan.api.router import Effect, Route
from sampan.api.version import MINIMUM, ApiVersion
from sampan.errors import Unavailable, Unsupported


def not_a_manager() -> Unavailable:
    """What dockerd says to everything that needs a swarm."""
    return Unavailable(
        'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to '
        "connect this node to swarm and try again."
    )


async def outside(call: Call) -> web.StreamResponse:
    """Any request that needs a swarm."""
    raise not_a_manager()


async def leave(call: Call) -> web.StreamResponse:
    """``POST /swarm/leave``."""
    raise Unavailable("This node is not part of a swarm")


async def enter(call: Call) -> web.StreamResponse:
    """``POST /swarm/init`` and ``/swarm/join``."""
    raise Unsupported("swarm mode is not supported by this daemon")


_V125, _V130 = ApiVersion(1, 25), ApiVersion(1, 30)
_TABLE: tuple[tuple[str, ApiVersion, tuple[tuple[str, str], ...]], ...] = (
    (
        "/swarm",
        MINIMUM,
        (("GET", ""), ("POST", "/update"), ("GET", "/unlockkey"), ("POST", "/unlock")),
    ),
    (
        "/nodes",
        MINIMUM,
        (("GET", ""), ("GET", "/{name}"), ("DELETE", "/{name}"), ("POST", "/{name}/update")),
    ),
    (
        "/services",
        MINIMUM,
        (
            ("GET", ""),
            ("POST", "/create"),
            ("GET", "/{name}"),
            ("DELETE", "/{name}"),
            ("POST", "/{name}/update"),
            ("GET", "/{name}/logs"),
        ),
    ),
    ("/tasks", MINIMUM, (("GET", ""), ("GET", "/{name}"), ("GET", "/{name}/logs"))),
    *(
        (
            kind,
            since,
            (
                ("GET", ""),
                ("POST", "/create"),
                ("GET", "/{name}"),
                ("DELETE", "/{name}"),
                ("POST", "/{name}/update"),
            ),
        )
        for kind, since in (("/secrets", _V125), ("/configs", _V130))
    ),
)
ROUTES = (
    Route(method="POST", pattern="/swarm/leave", handler=leave, effect=Effect.WRITE),
    Route(method="POST", pattern="/swarm/init", handler=enter, effect=Effect.WRITE),
    Route(method="POST", pattern="/swarm/join", handler=enter, effect=Effect.WRITE),
    *(
        Route(
            method=method,
            pattern=prefix + suffix,
            handler=outside,
            effect=Effect.READ if method == "GET" else Effect.WRITE,
            since=since,
        )
        for prefix, since, rows in _TABLE
        for method, suffix in rows
    ),
)
