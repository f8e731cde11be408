"""What the engine stores of networks and endpoints, and the values drivers get from it (pure)."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address, ip_interface

import msgspec

from sampan.network.model import EndpointSpec, PortBinding
from sampan.wire.container import EndpointSettings
from sampan.wire.network import IPAM, ConfigReference


class NetworkRecord(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """A network as it was created, its subnets chosen; ``created`` in Unix nanoseconds."""

    id: str
    name: str
    created: int
    driver: str
    enable_ipv4: bool = True
    enable_ipv6: bool = False
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    config_only: bool = False
    config_from: ConfigReference | None = None
    ipam: IPAM | None = None
    #: whether the user gave the subnets: only then may a container ask for an address
    subnets_given: bool = True
    options: dict[str, str] = {}
    labels: dict[str, str] = {}
    #: a plugin's ids of its pools, by subnet
    pools: dict[str, str] = {}


class StoredPort(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """A published port with its definite host port."""

    container_port: int
    protocol: str
    host_address: str = ""
    host_port: int = 0


class StoredEndpoint(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """An endpoint in its row: the driver's value, and what the user had asked for."""

    endpoint_id: str
    container_id: str
    network_id: str
    container_name: str
    interface: str
    mac: str
    addresses: list[str]
    gateways: list[str] = []
    link_local: list[str] = []
    sysctls: dict[str, str] = {}
    ports: list[StoredPort] = []
    priority: int = 0
    options: dict[str, str] = {}
    settings: EndpointSettings = EndpointSettings()


def store_endpoint(endpoint: EndpointSpec, settings: EndpointSettings) -> StoredEndpoint:
    """An endpoint as its row keeps it."""
    return StoredEndpoint(
        endpoint_id=endpoint.endpoint_id,
        container_id=endpoint.container_id,
        network_id=endpoint.network_id,
        container_name=endpoint.container_name,
        interface=endpoint.interface,
        mac=endpoint.mac,
        addresses=[str(address) for address in endpoint.addresses],
        gateways=[str(address) for address in endpoint.gateways],
        link_local=[str(address) for address in endpoint.link_local],
        sysctls=dict(endpoint.sysctls),
        ports=[
            StoredPort(
                container_port=port.container_port,
                protocol=port.protocol,
                host_address=str(port.host_address) if port.host_address is not None else "",
                host_port=port.host_port,
            )
            for port in endpoint.ports
        ],
        priority=endpoint.priority,
        options=dict(endpoint.options),
        settings=settings,
    )


def load_endpoint(stored: StoredEndpoint) -> EndpointSpec:
    """The driver's value of a row."""
    return EndpointSpec(
        endpoint_id=stored.endpoint_id,
        container_id=stored.container_id,
        network_id=stored.network_id,
        container_name=stored.container_name,
        interface=stored.interface,
        mac=stored.mac,
        addresses=tuple(ip_interface(text) for text in stored.addresses),
        gateways=tuple(ip_address(text) for text in stored.gateways),
        link_local=tuple(ip_interface(text) for text in stored.link_local),
        sysctls=stored.sysctls,
        ports=tuple(
            PortBinding(
                container_port=port.container_port,
                protocol=port.protocol,
                host_address=ip_address(port.host_address) if port.host_address else None,
                host_port=port.host_port,
            )
            for port in stored.ports
        ),
        priority=stored.priority,
        options=stored.options,
    )


def endpoint_sysctls(options: Mapping[str, str]) -> dict[str, str]:
    """The sysctls in a ``com.docker.network.endpoint.sysctls`` option; the interface is
    ``IFNAME`` in them, which may have been written small."""
    text = options.get("com.docker.network.endpoint.sysctls", "")
    pairs = (part.partition("=") for part in text.split(",") if part)
    return {name.strip().replace(".ifname.", ".IFNAME."): value.strip() for name, _, value in pairs}
