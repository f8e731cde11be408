"""Which of a container's networks gives it its default route (pure)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from sampan.network.model import EndpointSpec, NetworkSpec, Subnet

#: the auxiliary addresses that containers use as gateways instead of the bridge (Docker's), by
#: IP version
DEFAULT_GATEWAYS = {4: "DefaultGatewayIPv4", 6: "DefaultGatewayIPv6"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """A network and a container's endpoint in it."""

    network: NetworkSpec
    endpoint: EndpointSpec


def gateway_endpoint(connections: Sequence[Connection], version: int = 4) -> Connection | None:
    """The connection whose gateway is the default route of IP ``version``.

    As Docker: the highest ``priority`` (``gw-priority``), then networks with both families
    before those with one, then by name. Internal networks and those without a gateway never.
    """
    able = [
        c
        for c in connections
        if not c.network.internal
        and any(s.gateway is not None and s.prefix.version == version for s in c.network.subnets)
        and any(a.version == version for a in c.endpoint.addresses)
    ]
    return min(
        able,
        key=lambda c: (
            -c.endpoint.priority,
            not (c.network.ipv4 and c.network.ipv6),
            c.network.name,
        ),
        default=None,
    )


def with_gateways(connections: Sequence[Connection]) -> tuple[EndpointSpec, ...]:
    """The endpoints of ``connections``, in order, each with just the gateways it provides."""
    chosen = {
        version: connection.endpoint.endpoint_id
        for version in (4, 6)
        if (connection := gateway_endpoint(connections, version)) is not None
    }
    result = []
    for connection in connections:
        gateways = tuple(
            subnet.auxiliary.get(DEFAULT_GATEWAYS[subnet.prefix.version], subnet.gateway)
            for subnet in _first_of_each_family(connection.network)
            if subnet.gateway is not None
            and chosen.get(subnet.prefix.version) == connection.endpoint.endpoint_id
        )
        result.append(replace(connection.endpoint, gateways=gateways))
    return tuple(result)


def _first_of_each_family(network: NetworkSpec) -> Iterator[Subnet]:
    for version in (4, 6):
        for subnet in network.subnets:
            if subnet.prefix.version == version and subnet.gateway is not None:
                yield subnet
                break
