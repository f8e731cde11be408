"""From what a user says about a network to a :class:`NetworkSpec` (pure).

Option names are Docker's (``com.docker.network.*``). A key of Docker's this engine does not act
on is refused by name; keys of other makers are kept as they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

from sampan.errors import InvalidParameter, Unsupported
from sampan.kernel.rtnetlink import IPVLAN_FLAGS, IPVLAN_MODES, MACVLAN_MODES
from sampan.network import ipam
from sampan.network.model import DRIVERS, GATEWAY_MODES, IPAddress, NetworkSpec, RateLimit, Subnet
from sampan.network.traffic import EGRESS_OPTION, INGRESS_OPTION, limits_of

_BRIDGE = "com.docker.network.bridge."
MTU = "com.docker.network.driver.mtu"
BRIDGE_NAME = f"{_BRIDGE}name"
#: with the IP version behind
GATEWAY_MODE = f"{_BRIDGE}gateway_mode_ipv"
#: with the IP version behind: whether the network has addresses of it
ENABLE = "com.docker.network.enable_ipv"
_INHIBIT = f"{_BRIDGE}inhibit_ipv4"

_INTERFACE = re.compile(r"[A-Za-z0-9_.@+-]{1,15}")
_VXLAN_MAX = (1 << 24) - 1


def network_spec(
    *,
    id: str,
    name: str,
    driver: str,
    subnets: Sequence[Subnet] = (),
    internal: bool = False,
    options: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
    default_host_address: IPAddress | None = None,
) -> NetworkSpec:
    """The network that ``docker network create`` with these options makes.

    ``default_host_address`` is the daemon's ``--ip``. Raises :class:`InvalidParameter` naming the
    option that is wrong, :class:`Unsupported` for one of Docker's that is not implemented.
    """
    if not name.strip():
        raise InvalidParameter(f"invalid name: {name}")
    given = dict(options or {})
    spec = NetworkSpec(
        id=id,
        name=name,
        driver=driver,
        subnets=tuple(subnets),
        internal=internal,
        host_address=default_host_address,
        options=given,
        labels=dict(labels or {}),
    )
    table = _TABLES.get(driver, {})
    for key, value in given.items():
        apply = _COMMON.get(key) or table.get(key)
        if apply is not None:
            spec = apply(spec, key, value)
        elif key.startswith("com.docker.network."):
            raise Unsupported(f"network option {key} is not supported by driver {driver}")
        elif key.startswith("sampan.network."):
            endpoint_limits(spec, {})
    return _finished(spec)


def _finished(spec: NetworkSpec) -> NetworkSpec:
    """Defaults that depend on other fields, and what must fit together."""
    if spec.driver == "bridge" and not spec.bridge:
        spec = replace(spec, bridge=f"br-{spec.id[:12]}")
    if spec.driver == "overlay":
        spec = replace(spec, bridge=spec.bridge or f"ov-{spec.id[:12]}")
        if not spec.vxlan_id:
            raise InvalidParameter("overlay network needs the option vxlan_id")
    if spec.driver == "macvlan":
        spec = replace(spec, mode=spec.mode or "bridge")
    if spec.driver == "ipvlan":
        spec = replace(spec, mode=spec.mode or "l2")
    if spec.driver == "ns" and not spec.path:
        raise InvalidParameter("ns network needs the option path")
    for version, mode in ((4, spec.gateway_mode_ipv4), (6, spec.gateway_mode_ipv6)):
        if mode == "isolated" and not spec.internal:
            raise InvalidParameter(
                f"gateway mode 'isolated' (IPv{version}) is only for internal networks"
            )
    return spec


#: endpoint options of Docker's (``--network name=...,driver-opt=``)
INTERFACE_NAME = "com.docker.network.endpoint.ifname"
SYSCTLS = "com.docker.network.endpoint.sysctls"
#: drivers whose endpoints can be limited, and in which directions
_LIMITED = {
    "bridge": (EGRESS_OPTION, INGRESS_OPTION),
    "overlay": (EGRESS_OPTION, INGRESS_OPTION),
    "macvlan": (EGRESS_OPTION,),
    "ipvlan": (EGRESS_OPTION,),
}


def interface_name(options: Mapping[str, str]) -> str:
    """The interface's name an endpoint's options ask for, or ""; raises InvalidParameter."""
    name = options.get(INTERFACE_NAME, "")
    if name and (not _INTERFACE.fullmatch(name) or name in (".", "..", "lo")):
        raise InvalidParameter(f"invalid value {name!r} of endpoint option {INTERFACE_NAME}")
    return name


def endpoint_limits(spec: NetworkSpec, options: Mapping[str, str]) -> RateLimit:
    """The rate limits of an endpoint with these options on a network.

    Raises :class:`InvalidParameter` for what is no rate, :class:`Unsupported` for an option that
    the network's driver (one of ours) does not act on.
    """
    possible = _LIMITED.get(spec.driver, ())
    known = (INTERFACE_NAME,) if spec.driver == "cni" else (INTERFACE_NAME, SYSCTLS)
    own = spec.driver in DRIVERS  # a plugin gets all options, to do with as it likes
    for table in (options, spec.options):
        for key in table:
            ours = key.startswith("sampan.network.")
            docker = own and table is options and key.startswith("com.docker.network.")
            if (ours and key not in possible) or (docker and key not in known):
                raise Unsupported(f"option {key} is not supported by driver {spec.driver}")
    return limits_of(options, spec.options)


_Apply = Callable[[NetworkSpec, str, str], NetworkSpec]


def enabled_families(options: Mapping[str, str]) -> tuple[bool | None, bool | None]:
    """What options say about IPv4 and IPv6; None where they say nothing."""
    ipv4, ipv6 = options.get(f"{ENABLE}4"), options.get(f"{ENABLE}6")
    return (
        None if ipv4 is None else _boolean(f"{ENABLE}4", ipv4),
        None if ipv6 is None else _boolean(f"{ENABLE}6", ipv6),
    )


def without_gateway(options: Mapping[str, str], version: int, *, internal: bool) -> bool:
    """Whether no address is kept for a gateway: the host would not have it, by gateway mode
    ``isolated`` or because it is inhibited, and containers would have no route to it."""
    if options.get(f"{GATEWAY_MODE}{version}") == "isolated":
        return True
    inhibited = options.get(_INHIBIT) if version == 4 and internal else None
    return inhibited is not None and _boolean(_INHIBIT, inhibited)


def _boolean(key: str, value: str) -> bool:
    # The words of Go's strconv.ParseBool, which Docker uses.
    if value in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if value in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    raise InvalidParameter(
        f"invalid value {value!r} of network option {key}: expected true or false"
    )


def _number(key: str, value: str, low: int, high: int) -> int:
    if not value.isdecimal() or not low <= int(value) <= high:
        raise InvalidParameter(
            f"invalid value {value!r} of network option {key}: expected {low} to {high}"
        )
    return int(value)


def _set_mtu(spec: NetworkSpec, key: str, value: str) -> NetworkSpec:
    return replace(spec, mtu=_number(key, value, 0, 65535))


def _set_bridge(spec: NetworkSpec, key: str, value: str) -> NetworkSpec:
    if not _INTERFACE.fullmatch(value) or value in (".", ".."):
        raise InvalidParameter(f"invalid value {value!r} of network option {key}")
    return replace(spec, bridge=value)


def _set_icc(spec: NetworkSpec, key: str, value: str) -> NetworkSpec:
    return replace(spec, icc=_boolean(key, value))


def _set_masquerade(spec: NetworkSpec, key: str, value: str) -> NetworkSpec:
    return replace(spec, masquerade=_boolean(key, value))


def _set_inhibit(spec: NetworkSpec, key: str, value: str) -> NetworkSpec:
    return replace(spec, inhibit_ipv4=_boolean(key, value))


def _set_trusted(spec: NetworkSpec, key: str, value: str) -> NetworkSpec:
    names = tuple(name.strip() for name in value.split(":") if name.strip())
    for name in names:
        if not _INTERFACE.fullmatch(name):
            raise InvalidParameter(f"invalid value {value!r} of network option {key}")
    return replace(spec, trusted_interfaces=names)


def _set_host_binding(spec: NetworkSpec, key: str, value: str) -> NetworkSpec:
    address = ipam.parse_address(value)
    # 0.0.0.0, what the default bridge has, says as little as nothing: any address of either family
    return replace(spec, host_address=None if address.is_unspecified else address)


def _gateway_mode(key: str, value: str) -> str:
    if value not in GATEWAY_MODES:
        raise InvalidParameter(
            f"invalid value {value!r} of network option {key}: expected {', '.join(GATEWAY_MODES)}"
        )
    return value


def _set_mode4(spec: NetworkSpec, key: str, value: str) -> NetworkSpec:
    return replace(spec, gateway_mode_ipv4=_gateway_mode(key, value))


def _set_mode6(spec: NetworkSpec, key: str, value: str) -> NetworkSpec:
    return replace(spec, gateway_mode_ipv6=_gateway_mode(key, value))


def _set_snat4(spec: NetworkSpec, key: str, value: str) -> NetworkSpec:
    address = ipam.parse_address(value)
    if not isinstance(address, IPv4Address):
        raise InvalidParameter(f"network option {key} needs an IPv4 address, not {value!r}")
    return replace(spec, snat_ipv4=address)


def _set_snat6(spec: NetworkSpec, key: str, value: str) -> NetworkSpec:
    address = ipam.parse_address(value)
    if not isinstance(address, IPv6Address):
        raise InvalidParameter(f"network option {key} needs an IPv6 address, not {value!r}")
    return replace(spec, snat_ipv6=address)


def _set_prefix(spec: NetworkSpec, key: str, value: str) -> NetworkSpec:
    if not re.fullmatch(r"[a-zA-Z]{1,12}", value):
        raise InvalidParameter(f"invalid value {value!r} of network option {key}")
    return replace(spec, container_interface_prefix=value)


def _set_parent(spec: NetworkSpec, key: str, value: str) -> NetworkSpec:
    if not _INTERFACE.fullmatch(value):
        raise InvalidParameter(f"invalid value {value!r} of network option {key}")
    return replace(spec, parent=value)


def _set_macvlan_mode(spec: NetworkSpec, key: str, value: str) -> NetworkSpec:
    if value not in MACVLAN_MODES:
        raise InvalidParameter(
            f"unknown macvlan mode {value!r}: expected {', '.join(MACVLAN_MODES)}"
        )
    return replace(spec, mode=value)


def _set_ipvlan_mode(spec: NetworkSpec, key: str, value: str) -> NetworkSpec:
    if value not in IPVLAN_MODES:
        raise InvalidParameter(f"unknown ipvlan mode {value!r}: expected {', '.join(IPVLAN_MODES)}")
    return replace(spec, mode=value)


def _check_ipvlan_flag(spec: NetworkSpec, key: str, value: str) -> NetworkSpec:
    if value not in IPVLAN_FLAGS:
        raise InvalidParameter(f"unknown ipvlan flag {value!r}: expected {', '.join(IPVLAN_FLAGS)}")
    return spec


def _set_vxlan(spec: NetworkSpec, key: str, value: str) -> NetworkSpec:
    return replace(spec, vxlan_id=_number(key, value, 1, _VXLAN_MAX))


def _set_peers(spec: NetworkSpec, key: str, value: str) -> NetworkSpec:
    peers = tuple(ipam.parse_address(part.strip()) for part in value.split(",") if part.strip())
    return replace(spec, peers=peers)


def _set_path(spec: NetworkSpec, key: str, value: str) -> NetworkSpec:
    if not value.startswith("/"):
        raise InvalidParameter(f"network option {key} needs an absolute path, not {value!r}")
    return replace(spec, path=value)


def _accept(spec: NetworkSpec, key: str, value: str) -> NetworkSpec:
    return spec


_COMMON: Mapping[str, _Apply] = {
    MTU: _set_mtu,
    "com.docker.network.mtu": _set_mtu,
    "mtu": _set_mtu,
    "com.docker.network.container_iface_prefix": _set_prefix,
    # Asked for by --ipv4 and --ipv6, which say the same in fields of their own.
    f"{ENABLE}4": _accept,  # see enabled_families
    f"{ENABLE}6": _accept,
}

_TABLES: Mapping[str, Mapping[str, _Apply]] = {
    "bridge": {
        BRIDGE_NAME: _set_bridge,
        f"{_BRIDGE}enable_icc": _set_icc,
        f"{_BRIDGE}enable_ip_masquerade": _set_masquerade,
        _INHIBIT: _set_inhibit,
        f"{_BRIDGE}trusted_host_interfaces": _set_trusted,
        f"{_BRIDGE}host_binding_ipv4": _set_host_binding,
        f"{GATEWAY_MODE}4": _set_mode4,
        f"{GATEWAY_MODE}6": _set_mode6,
        # Marks the network containers join by default; the engine knows which that is.
        f"{_BRIDGE}default_bridge": _accept,
        "com.docker.network.host_ipv4": _set_snat4,
        "com.docker.network.host_ipv6": _set_snat6,
    },
    "macvlan": {"parent": _set_parent, "macvlan_mode": _set_macvlan_mode},
    "ipvlan": {
        "parent": _set_parent,
        "ipvlan_mode": _set_ipvlan_mode,
        "ipvlan_flag": _check_ipvlan_flag,
    },
    "overlay": {
        "vxlan_id": _set_vxlan,
        "com.docker.network.driver.overlay.vxlanid_list": _set_vxlan,
        "peers": _set_peers,
        "parent": _set_parent,
    },
    "ns": {"path": _set_path},
}
