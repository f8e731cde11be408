"""Networks and their address management, as the Docker Engine API writes them.

API v1.55, spec/docker-api.

Every field is optional on the wire; ``None`` means absent. Only the edge decodes these from
untrusted input; msgspec names the offending field.
"""

from __future__ import annotations

import msgspec

from sampan.wire.base import Json, Object
from sampan.wire.container import EndpointSettings


class IPAMConfig(Object, kw_only=True, frozen=True, omit_defaults=True):
    """One address pool of a network."""

    subnet: str | None = msgspec.field(default=None, name="Subnet")
    ip_range: str | None = msgspec.field(default=None, name="IPRange")
    gateway: str | None = msgspec.field(default=None, name="Gateway")
    auxiliary_addresses: dict[str, str] | None = msgspec.field(
        default=None, name="AuxiliaryAddresses"
    )


class IPAM(Object, kw_only=True, frozen=True, omit_defaults=True):
    """Address management of a network: driver, pools, options."""

    driver: str | None = msgspec.field(default=None, name="Driver")
    config: list[IPAMConfig] | None = msgspec.field(default=None, name="Config")
    options: dict[str, str] | None = msgspec.field(default=None, name="Options")


class ConfigReference(Object, kw_only=True, frozen=True, omit_defaults=True):
    """The config-only network source to provide the configuration for this network."""

    network: str | None = msgspec.field(default=None, name="Network")


class PeerInfo(Object, kw_only=True, frozen=True, omit_defaults=True):
    """represents one peer of an overlay network."""

    name: str | None = msgspec.field(default=None, name="Name")
    ip: str | None = msgspec.field(default=None, name="IP")


class Network(Object, kw_only=True, frozen=True, omit_defaults=True):
    """What a network is, without what is connected to it."""

    name: str | None = msgspec.field(default=None, name="Name")
    id: str | None = msgspec.field(default=None, name="Id")
    created: str | None = msgspec.field(default=None, name="Created")
    scope: str | None = msgspec.field(default=None, name="Scope")
    driver: str | None = msgspec.field(default=None, name="Driver")
    enable_ipv4: bool | None = msgspec.field(default=None, name="EnableIPv4")
    enable_ipv6: bool | None = msgspec.field(default=None, name="EnableIPv6")
    ipam: IPAM | None = msgspec.field(default=None, name="IPAM")
    internal: bool | None = msgspec.field(default=None, name="Internal")
    attachable: bool | None = msgspec.field(default=None, name="Attachable")
    ingress: bool | None = msgspec.field(default=None, name="Ingress")
    config_from: ConfigReference | None = msgspec.field(default=None, name="ConfigFrom")
    config_only: bool | None = msgspec.field(default=None, name="ConfigOnly")
    options: dict[str, str] | None = msgspec.field(default=None, name="Options")
    labels: dict[str, str] | None = msgspec.field(default=None, name="Labels")
    peers: list[PeerInfo] | None = msgspec.field(default=None, name="Peers")


class NetworkSummary(Network, kw_only=True, frozen=True, omit_defaults=True):
    """Network list response item."""


class EndpointResource(Object, kw_only=True, frozen=True, omit_defaults=True):
    """contains network resources allocated and used for a container in a network."""

    name: str | None = msgspec.field(default=None, name="Name")
    endpoint_id: str | None = msgspec.field(default=None, name="EndpointID")
    mac_address: str | None = msgspec.field(default=None, name="MacAddress")
    ipv4_address: str | None = msgspec.field(default=None, name="IPv4Address")
    ipv6_address: str | None = msgspec.field(default=None, name="IPv6Address")


class SubnetStatus(Object, kw_only=True, frozen=True, omit_defaults=True):
    """How many addresses of a subnet are in use and left."""

    i_ps_in_use: int | None = msgspec.field(default=None, name="IPsInUse")
    dynamic_i_ps_available: int | None = msgspec.field(default=None, name="DynamicIPsAvailable")


class IPAMStatus(Object, kw_only=True, frozen=True, omit_defaults=True):
    """Address use by subnet."""

    subnets: dict[str, SubnetStatus] | None = msgspec.field(default=None, name="Subnets")


class NetworkStatus(Object, kw_only=True, frozen=True, omit_defaults=True):
    """provides runtime information about the network such as the number of allocated IPs."""

    ipam: IPAMStatus | None = msgspec.field(default=None, name="IPAM")


class NetworkInspect(Network, kw_only=True, frozen=True, omit_defaults=True):
    """The body of the 'get network' http response message."""

    containers: dict[str, EndpointResource] | None = msgspec.field(default=None, name="Containers")
    services: dict[str, dict[str, Json]] | None = msgspec.field(default=None, name="Services")
    status: NetworkStatus | None = msgspec.field(default=None, name="Status")


class NetworkTaskInfo(Object, kw_only=True, frozen=True, omit_defaults=True):
    """carries the information about one backend task."""

    name: str | None = msgspec.field(default=None, name="Name")
    endpoint_id: str | None = msgspec.field(default=None, name="EndpointID")
    endpoint_ip: str | None = msgspec.field(default=None, name="EndpointIP")
    info: dict[str, str] | None = msgspec.field(default=None, name="Info")


class ServiceInfo(Object, kw_only=True, frozen=True, omit_defaults=True):
    """represents service parameters with the list of service's tasks."""

    vip: str | None = msgspec.field(default=None, name="VIP")
    ports: list[str] | None = msgspec.field(default=None, name="Ports")
    local_lb_index: int | None = msgspec.field(default=None, name="LocalLBIndex")
    tasks: list[NetworkTaskInfo] | None = msgspec.field(default=None, name="Tasks")


class NetworkCreateResponse(Object, kw_only=True, frozen=True, omit_defaults=True):
    """OK response to NetworkCreate operation."""

    id: str | None = msgspec.field(default=None, name="Id")
    warning: str | None = msgspec.field(default=None, name="Warning")


class NetworkConnectRequest(Object, kw_only=True, frozen=True, omit_defaults=True):
    """What ``POST /networks/{id}/connect`` takes."""

    container: str | None = msgspec.field(default=None, name="Container")
    endpoint_config: EndpointSettings | None = msgspec.field(default=None, name="EndpointConfig")


class NetworkDisconnectRequest(Object, kw_only=True, frozen=True, omit_defaults=True):
    """What ``POST /networks/{id}/disconnect`` takes."""

    container: str | None = msgspec.field(default=None, name="Container")
    force: bool | None = msgspec.field(default=None, name="Force")


class NetworkCreateRequest(Object, kw_only=True, frozen=True, omit_defaults=True):
    """What ``POST /networks/create`` takes."""

    name: str | None = msgspec.field(default=None, name="Name")
    driver: str | None = msgspec.field(default=None, name="Driver")
    scope: str | None = msgspec.field(default=None, name="Scope")
    internal: bool | None = msgspec.field(default=None, name="Internal")
    attachable: bool | None = msgspec.field(default=None, name="Attachable")
    ingress: bool | None = msgspec.field(default=None, name="Ingress")
    config_only: bool | None = msgspec.field(default=None, name="ConfigOnly")
    config_from: ConfigReference | None = msgspec.field(default=None, name="ConfigFrom")
    ipam: IPAM | None = msgspec.field(default=None, name="IPAM")
    enable_ipv4: bool | None = msgspec.field(default=None, name="EnableIPv4")
    enable_ipv6: bool | None = msgspec.field(default=None, name="EnableIPv6")
    options: dict[str, str] | None = msgspec.field(default=None, name="Options")
    labels: dict[str, str] | None = msgspec.field(default=None, name="Labels")


class NetworksPruneReport(Object, kw_only=True, frozen=True, omit_defaults=True):
    """The networks that pruning removed."""

    networks_deleted: list[str] | None = msgspec.field(default=None, name="NetworksDeleted")
