"""Create requests of networks -> records with subnets chosen -> drivers' values (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_interface

import msgspec

from sampan.engine import clock
from sampan.engine.config import EngineConfig
from sampan.engine.networkrecord import NetworkRecord
from sampan.errors import Forbidden, InvalidParameter, Unsupported
from sampan.network import ipam
from sampan.network.model import IPNetwork, NetworkSpec, Subnet
from sampan.network.options import ENABLE, enabled_families, network_spec, without_gateway
from sampan.network.priority import DEFAULT_GATEWAYS
from sampan.network.remoteipam import HeldPool, PoolRequest
from sampan.wire.network import IPAM, IPAMConfig, NetworkCreateRequest, NetworkSummary


def complete(
    body: NetworkCreateRequest,
    network_id: str,
    now: int,
    config: EngineConfig,
    taken: Sequence[IPNetwork],
    own: Sequence[IPNetwork],
    pools: Sequence[HeldPool] | None = None,
) -> NetworkRecord:
    """The record of a new network; ``pools`` are those of a plugin that manages the addresses.

    Automatically chosen subnets avoid ``taken`` (the host's networks and ours); asked-for ones
    may not overlap ``own``. Raises InvalidParameter, Forbidden (overlap), NoSpace.
    """
    if body.scope and body.scope != "local":
        raise Unsupported(f"networks of scope {body.scope} need swarm mode")
    if body.ingress:
        raise Unsupported("ingress networks need swarm mode")
    if pools is not None:
        given = IPAM(config=[wire_subnet(pool.subnet) for pool in pools])
        kept = body.ipam or given
        body = msgspec.structs.replace(
            body, ipam=msgspec.structs.replace(kept, config=given.config)
        )
    driver = "null" if body.config_only else body.driver or "bridge"
    ipv4 = body.enable_ipv4 is not False
    # dockerd of old took an IPv6 subnet for nothing unless told otherwise; clients still give one
    # without a word, and mean it.
    ipv6 = _names_ipv6(body) if body.enable_ipv6 is None else body.enable_ipv6
    return NetworkRecord(
        id=network_id,
        name=body.name or "",
        created=now,
        driver=driver,
        enable_ipv4=ipv4,
        enable_ipv6=ipv6,
        internal=bool(body.internal),
        attachable=bool(body.attachable),
        config_only=bool(body.config_only),
        config_from=body.config_from,
        ipam=_ipam(body, driver, config, taken, own, ipv4=ipv4, ipv6=ipv6),
        subnets_given=any(entry.subnet for entry in (body.ipam and body.ipam.config) or ()),
        options=body.options or {},
        labels=body.labels or {},
        pools={str(pool.subnet.prefix): pool.id for pool in pools or ()},
    )


def configured(body: NetworkCreateRequest, source: NetworkRecord) -> NetworkCreateRequest:
    """A request completed from a configuration-only network; InvalidParameter when it says
    something of its own about what the configuration is for."""
    ipam_given = body.ipam is not None and (
        body.ipam.config or body.ipam.options or body.ipam.driver not in (None, "", "default")
    )
    if body.config_only or ipam_given or body.options or body.enable_ipv6 or body.internal:
        raise InvalidParameter(
            "user specified configurations are not supported if the network depends on a "
            "configuration network"
        )
    return msgspec.structs.replace(
        body,
        ipam=source.ipam,
        options=source.options,
        enable_ipv4=source.enable_ipv4,
        enable_ipv6=source.enable_ipv6,
        internal=source.internal,
    )


def with_defaults(body: NetworkCreateRequest, config: EngineConfig) -> NetworkCreateRequest:
    """A request completed with the daemon's options for its driver.

    Among them may be which families it has; not if the request says so itself.
    """
    defaults = config.network_options.get(body.driver or "bridge", {})
    options = {**defaults, **(body.options or {})}
    ipv4, ipv6 = enabled_families(options)
    if body.enable_ipv4 is not None:
        options.pop(f"{ENABLE}4", None)
        ipv4 = body.enable_ipv4
    if body.enable_ipv6 is not None:
        options.pop(f"{ENABLE}6", None)
        ipv6 = body.enable_ipv6
    return msgspec.structs.replace(body, options=options, enable_ipv4=ipv4, enable_ipv6=ipv6)


def pool_requests(body: NetworkCreateRequest) -> list[PoolRequest]:
    """What a network asks of a plugin that is to manage its addresses."""
    found = [
        PoolRequest(
            subnet=entry.subnet or "",
            ip_range=entry.ip_range or "",
            gateway=(entry.gateway or "").partition("/")[0],
            auxiliary=entry.auxiliary_addresses or {},
            ipv6=":" in (entry.subnet or ""),
        )
        for entry in (body.ipam.config if body.ipam is not None else None) or []
    ]
    for wanted, ipv6 in ((body.enable_ipv4 is not False, False), (bool(body.enable_ipv6), True)):
        if wanted and not any(request.ipv6 == ipv6 for request in found):
            found.append(PoolRequest(auxiliary={}, ipv6=ipv6))
    return found


def _names_ipv6(body: NetworkCreateRequest) -> bool:
    """Whether a subnet of the request is one of IPv6."""
    entries = (body.ipam.config if body.ipam else None) or []
    return any(":" in (entry.subnet or "") for entry in entries)


def _ipam(
    body: NetworkCreateRequest,
    driver: str,
    config: EngineConfig,
    taken: Sequence[IPNetwork],
    own: Sequence[IPNetwork],
    *,
    ipv4: bool,
    ipv6: bool,
) -> IPAM:
    wanted = body.ipam or IPAM()
    if body.config_only:
        return IPAM(driver=wanted.driver or "default", config=wanted.config, options=wanted.options)
    if driver == "cni" and wanted.config:
        raise InvalidParameter(
            "invalid network config: the addresses of a CNI network are its plugins' to choose"
        )
    if wanted.driver == "null" or driver in ("host", "null", "ns", "cni"):
        return IPAM(driver=wanted.driver or "null", config=[], options=wanted.options)
    pools = _pools(config)
    options, internal = body.options or {}, bool(body.internal)
    found: list[IPAMConfig] = []
    versions = set()
    for entry in wanted.config or []:
        if not entry.subnet:
            if entry.gateway or entry.ip_range or entry.auxiliary_addresses:
                raise InvalidParameter(
                    "invalid network config: a gateway or range needs a subnet of its own"
                )
            continue
        prefix = _whole(entry.subnet, "subnet")
        _check_overlap(prefix, own)
        versions.add(prefix.version)
        bare = without_gateway(options, prefix.version, internal=internal)
        found.append(wire_subnet(_subnet(entry, prefix, with_gateway=not bare)))
    for version, enabled in ((4, ipv4), (6, ipv6)):
        if version in versions and not enabled:
            raise InvalidParameter(
                f"invalid network config: IPv{version} is not enabled but a subnet is given"
            )
        if enabled and version not in versions:
            prefix = ipam.choose_subnet(pools, taken, version)
            bare = without_gateway(options, version, internal=internal)
            found.append(wire_subnet(ipam.make_subnet(prefix, with_gateway=not bare)))
    found.sort(key=lambda subnet: ":" in (subnet.subnet or ""))  # IPv4 first, as dockerd shows it
    return IPAM(driver=wanted.driver or "default", config=found, options=wanted.options)


def _pools(config: EngineConfig) -> list[ipam.Pool]:
    """What subnets nobody names are cut from."""
    pools = [ipam.Pool(ipam.parse_network(p.base), p.size) for p in config.address_pools]
    pools = pools or list(ipam.DEFAULT_POOLS)
    if not any(pool.base.version == 6 for pool in pools):
        pools.append(ipam.ula_pool(network_seed(config)))
    return pools


def network_seed(config: EngineConfig) -> bytes:
    """What this engine's unique local IPv6 prefix is derived from."""
    return str(config.data_root).encode()


def _whole(text: str, what: str) -> IPNetwork:
    """A network as the user wrote it, who may not have meant one with bits of a host."""
    prefix = ipam.parse_network(text)
    if ip_interface(text).ip != prefix.network_address:
        raise InvalidParameter(
            f"invalid network config:\ninvalid {what} {text}: it should be {prefix}"
        )
    return prefix


def _check_overlap(prefix: IPNetwork, own: Sequence[IPNetwork]) -> None:
    for other in own:
        if prefix.version == other.version and prefix.overlaps(other):
            raise Forbidden(
                "invalid pool request: Pool overlaps with other one on this address space"
            )


def _subnet(entry: IPAMConfig, prefix: IPNetwork, *, with_gateway: bool) -> Subnet:
    return ipam.make_subnet(
        prefix,
        with_gateway=with_gateway,
        gateway=ipam.parse_address(entry.gateway.partition("/")[0]) if entry.gateway else None,
        ip_range=_whole(entry.ip_range, "ip-range") if entry.ip_range else None,
        auxiliary={
            name: ipam.parse_address(text)
            for name, text in (entry.auxiliary_addresses or {}).items()
        },
    )


def wire_subnet(subnet: Subnet) -> IPAMConfig:
    """A subnet as the API shows it."""
    return IPAMConfig(
        subnet=str(subnet.prefix),
        gateway=str(subnet.gateway) if subnet.gateway is not None else None,
        ip_range=str(subnet.ip_range) if subnet.ip_range is not None else None,
        auxiliary_addresses={name: str(a) for name, a in subnet.auxiliary.items()} or None,
    )


def subnets(record: NetworkRecord) -> tuple[Subnet, ...]:
    """The subnets of a record."""
    found = []
    for entry in (record.ipam.config if record.ipam else None) or []:
        found.append(
            Subnet(
                prefix=ipam.parse_network(entry.subnet or ""),
                gateway=ipam.parse_address(entry.gateway) if entry.gateway else None,
                ip_range=ipam.parse_network(entry.ip_range) if entry.ip_range else None,
                auxiliary={
                    name: ipam.parse_address(text)
                    for name, text in (entry.auxiliary_addresses or {}).items()
                },
            )
        )
    return tuple(found)


def spec(record: NetworkRecord, config: EngineConfig) -> NetworkSpec:
    """The driver's value of a record."""
    publish = config.publish_address
    return network_spec(
        id=record.id,
        name=record.name,
        driver=record.driver,
        # A configuration is for other networks: their drivers will read it.
        subnets=() if record.config_only else subnets(record),
        internal=record.internal,
        options={} if record.config_only else record.options,
        labels=record.labels,
        default_host_address=ipam.parse_address(publish)
        if publish not in ("", "0.0.0.0", "::")
        else None,
    )


def default_bridge(
    config: EngineConfig,
    network_id: str,
    now: int,
    taken: Sequence[IPNetwork],
    present: Sequence[Subnet] = (),
) -> NetworkRecord:
    """The record of the network ``bridge``, from the daemon's options (``--bip`` and so on).

    ``present`` are the subnets it has had: where no option names one, they stay. Raises
    :class:`InvalidParameter` for options that are wrong.
    """
    wanted = [(4, config.bridge_address, config.fixed_cidr, config.default_gateway)]
    options6 = (config.bridge_address6, config.fixed_cidr6, config.default_gateway6)
    if config.bridge_ipv6:
        wanted.append((6, *options6))
    elif any(options6):
        raise InvalidParameter("IPv6 options of the default bridge need --ipv6")
    subnets = []
    for version, address, fixed, gateway in wanted:
        kept = next((s.prefix for s in present if s.prefix.version == version), None)
        if address:
            subnet = _bridge_subnet(address, fixed)
        elif fixed:
            subnet = ipam.make_subnet(ipam.parse_network(fixed))
        else:
            prefix = kept or ipam.choose_subnet(_pools(config), taken, version)
            subnet = ipam.make_subnet(prefix)
        if subnet.prefix.version != version:
            raise InvalidParameter(f"{subnet.prefix} is no IPv{version} subnet of the bridge")
        if gateway:
            outside = {DEFAULT_GATEWAYS[version]: ipam.parse_address(gateway)}
            subnet = replace(subnet, auxiliary=outside)
        subnets.append(subnet)
    options = {
        "com.docker.network.bridge.default_bridge": "true",
        "com.docker.network.bridge.enable_icc": str(config.icc).lower(),
        "com.docker.network.bridge.enable_ip_masquerade": str(config.ip_masquerade).lower(),
        "com.docker.network.bridge.host_binding_ipv4": config.publish_address,
        "com.docker.network.bridge.name": config.bridge,
        "com.docker.network.driver.mtu": str(config.bridge_mtu),
    }
    return NetworkRecord(
        id=network_id,
        name="bridge",
        created=now,
        driver="bridge",
        enable_ipv6=config.bridge_ipv6,
        ipam=IPAM(driver="default", config=[wire_subnet(subnet) for subnet in subnets]),
        options=options,
    )


def _bridge_subnet(address: str, fixed: str) -> Subnet:
    """The default bridge's subnet by its own address, containers in ``fixed``."""
    try:
        interface = ip_interface(address)
    except ValueError as error:
        raise InvalidParameter(f"invalid CIDR address: {address}") from error
    return Subnet(
        prefix=interface.network,
        gateway=interface.ip,
        ip_range=ipam.parse_network(fixed) if fixed else None,
    )


def plain(name: str, driver: str, network_id: str, now: int) -> NetworkRecord:
    """The record of ``host`` or ``none``."""
    return NetworkRecord(
        id=network_id, name=name, created=now, driver=driver, ipam=IPAM(driver="default", config=[])
    )


def summary(record: NetworkRecord) -> NetworkSummary:
    """A network as the API shows it."""
    return NetworkSummary(
        name=record.name,
        id=record.id,
        created=clock.rfc3339(record.created),
        scope="local",
        driver=record.driver,
        enable_ipv4=record.enable_ipv4,
        enable_ipv6=record.enable_ipv6,
        ipam=record.ipam,
        internal=record.internal,
        attachable=record.attachable,
        ingress=record.ingress,
        config_from=record.config_from,
        config_only=record.config_only,
        options=record.options,
        labels=record.labels,
    )
