"""A running container's networks come and go: its default routes and published ports move along.

What :func:`sampan.engine.fabric.with_routes` decides at a start is decided again for the networks
there are now, and only what differs is changed. Everything here blocks.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

from sampan.engine.fabric import Fabric, Plug, with_routes
from sampan.engine.record import Record
from sampan.errors import StartFailed
from sampan.network import interface
from sampan.network.model import PortBinding


def join(
    fabric: Fabric, record: Record, before: Sequence[Plug], plug: Plug, pid: int
) -> tuple[Plug, ...]:
    """Plug one more endpoint into the running container ``pid`` that has ``before``.

    Returns all endpoints as they became, the new one last. A failure leaves things as they were.
    """
    try:
        with ExitStack() as undo:
            [plug] = fabric.addressed([plug], undo)
            *staying, new = rerouted(record, [*before, plug])
            changed = _change(fabric, before, staying, pid, undo)
            done = fabric.plug_in([new], pid, undo)
            undo.pop_all()
    except FileNotFoundError as error:
        raise StartFailed("the container's first process is gone") from error
    return (*changed, *done)


def leave(
    fabric: Fabric, record: Record, plug: Plug, rest: Sequence[Plug], pid: int
) -> tuple[Plug, ...]:
    """Unplug one endpoint of the running container ``pid``; returns the ``rest`` as they became.

    What cannot be taken over by another network (a host port that was lost meanwhile) fails
    this once ``plug`` is gone.
    """
    fabric.detach([plug], pid)
    with ExitStack() as undo:
        wanted = rerouted(record, rest, plug.endpoint.ports)
        changed = _change(fabric, rest, wanted, pid, undo)
        undo.pop_all()
    return changed


def rerouted(
    record: Record, plugs: Sequence[Plug], freed: Sequence[PortBinding] = ()
) -> tuple[Plug, ...]:
    """The endpoints as their container should have them now (pure).

    ``freed`` are ports of an endpoint that is gone. Gateways that a plugin told are kept. Where
    CNI's plugins set a route or published a port, nothing moves: they do that at a start alone.
    """
    if any(p.network.record.driver == "cni" for p in plugs) and any(
        p.endpoint.gateways or p.endpoint.ports for p in plugs
    ):
        return tuple(plugs)
    held = next((p.endpoint.ports for p in plugs if p.endpoint.ports), freed)
    bare = [replace(p, endpoint=replace(p.endpoint, ports=())) for p in plugs]
    found = []
    for old, new in zip(plugs, with_routes(record, bare, held), strict=True):
        told = {gateway.version: gateway for gateway in old.endpoint.gateways}
        gateways = tuple(told.get(g.version, g) for g in new.endpoint.gateways)
        found.append(replace(new, endpoint=replace(new.endpoint, gateways=gateways)))
    return tuple(found)


def _change(
    fabric: Fabric, before: Sequence[Plug], after: Sequence[Plug], pid: int, undo: ExitStack
) -> tuple[Plug, ...]:
    """Make ``before`` what ``after`` says, ports taken back before others get them."""
    pairs = list(zip(before, after, strict=True))
    if any(old.endpoint.gateways != new.endpoint.gateways for old, new in pairs):
        undo.callback(_set_routes, before, pid)
        _set_routes(after, pid)
    ports = {}
    for old, new in sorted(pairs, key=lambda pair: bool(pair[1].endpoint.ports)):
        if old.endpoint.ports != new.endpoint.ports:
            driver = fabric.drivers.find(new.network.record.driver)
            undo.callback(driver.publish, old.network.spec, old.endpoint)
            ports[new.network.id] = driver.publish(new.network.spec, new.endpoint)
    return tuple(
        replace(new, endpoint=replace(new.endpoint, ports=ports[new.network.id]))
        if new.network.id in ports
        else new
        for new in after
    )


def _set_routes(plugs: Sequence[Plug], pid: int) -> None:
    namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        interface.set_gateways(namespace, [plug.endpoint for plug in plugs])
    finally:
        os.close(namespace)
