"""The routes, one module per kind of object; :func:`all_routes` is the whole table."""

from __future__ import annotations

from sampan.api.router import Route
from sampan.api.routes import (
    archive,
    build,
    buildkit,
    containers,
    exec_,
    images,
    lifecycle,
    modernbuild,
    networks,
    plugins,
    streams,
    swarm,
    system,
    transfer,
    volumes,
)


def all_routes() -> list[Route]:
    """Every route of the API; literal paths come before the patterns that would match them."""
    tables = (
        system,
        containers,
        lifecycle,
        streams,
        archive,
        exec_,
        transfer,
        images,
        build,
        buildkit,
        modernbuild,
        networks,
        volumes,
        plugins,
        swarm,
    )
    return [route for table in tables for route in table.ROUTES]
