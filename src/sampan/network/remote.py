"""Networks of a plugin: libnetwork's remote driver protocol (``NetworkDriver.*``).

The plugin makes networks and, for each endpoint, an interface on the host; we move that into the
container, give it the endpoint's addresses and the routes the plugin asked for. One object looks
after the networks of all plugins: a network's driver is the plugin's name.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_interface
from typing import TypeVar

from sampan.errors import NotFound, SampanError, StartFailed, Unsupported
from sampan.kernel import rtdump, rtnetlink
from sampan.kernel.netlink import NetlinkSocket
from sampan.kernel.rtnetlink import LinkOptions
from sampan.network import interface, ipam
from sampan.network.journal import Journal
from sampan.network.model import (
    EndpointSpec,
    EndpointStatus,
    IPAddress,
    IPInterface,
    NetworkSpec,
    Observation,
    PortBinding,
    Subnet,
)
from sampan.plugin.client import Answer, Plugin, Plugins

INTERFACE = "NetworkDriver"
_GENERIC = "com.docker.network.generic"
_EXPOSED = "com.docker.network.endpoint.exposedports"
_PORT_MAP = "com.docker.network.portmap"
_IFNAME = "com.docker.network.endpoint.ifname"
_PROTOCOL_NUMBERS = {"tcp": 6, "udp": 17, "sctp": 132}
_LINK_NAME = re.compile(r"[^/\s:]{1,15}")

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """What a plugin's ``Join`` asks for: the interface ``source`` of the host for the container,
    its gateways, and routes as (destination, next hop or "")."""

    source: str
    prefix: str = ""
    gateways: tuple[IPAddress, ...] = ()
    routes: tuple[tuple[str, str], ...] = ()


class RemoteDriver:
    """All networks of plugins; implements :class:`sampan.network.driver.Driver`."""

    def __init__(self, plugins: Plugins, journal: Journal) -> None:
        self._plugins = plugins
        self._journal = journal
        self._lock = threading.Lock()
        self._sources: dict[str, str] = {}
        self._socket = NetlinkSocket()

    def close(self) -> None:
        """Close the driver's socket."""
        self._socket.close()

    def ensure(self, spec: NetworkSpec) -> None:
        """See :meth:`Driver.ensure`: the plugin's ``CreateNetwork``, once in a network's life."""
        _call(
            self._plugin(spec),
            "CreateNetwork",
            NetworkID=spec.id,
            Options={
                _GENERIC: dict(spec.options),
                "com.docker.network.enable_ipv4": spec.ipv4,
                "com.docker.network.enable_ipv6": spec.ipv6,
                "com.docker.network.internal": spec.internal,
            },
            IPv4Data=[_pool(s) for s in spec.subnets if s.prefix.version == 4],
            IPv6Data=[_pool(s) for s in spec.subnets if s.prefix.version == 6],
        )

    def remove(self, spec: NetworkSpec) -> None:
        """See :meth:`Driver.remove`."""
        _call(self._plugin(spec), "DeleteNetwork", NetworkID=spec.id)

    def attach(self, spec: NetworkSpec, endpoint: EndpointSpec, netns_fd: int) -> EndpointStatus:
        """See :meth:`Driver.attach`."""
        plugin = self._plugin(spec)
        entry = {"driver": spec.driver, "network": spec.id}
        with contextlib.ExitStack() as undo:
            self._journal.write(endpoint.endpoint_id, entry)
            undo.callback(self._forget, endpoint.endpoint_id)
            endpoint = _created(plugin, endpoint)
            undo.callback(_quietly, _call, plugin, "DeleteEndpoint", **_ids(endpoint))
            joined = _join(plugin, endpoint)
            undo.callback(_quietly, _call, plugin, "Leave", **_ids(endpoint))
            endpoint = replace(
                endpoint,
                interface=_named(endpoint, joined),
                gateways=joined.gateways if endpoint.gateways else (),
            )
            mac = self._plug(spec, endpoint, joined, netns_fd)
            ports = _publish(plugin, endpoint)
            undo.pop_all()
        return EndpointStatus(
            interface=endpoint.interface,
            mac=mac,
            ports=ports,
            addresses=endpoint.addresses,
            gateways=endpoint.gateways,
        )

    def _plug(
        self, spec: NetworkSpec, endpoint: EndpointSpec, joined: Joined, netns_fd: int
    ) -> str:
        """Move the plugin's interface into the container and configure it; its MAC address."""
        with self._lock, _translated(f"cannot connect to network {spec.name}"):
            link = rtdump.link(self._socket, joined.source)
            if link is None:
                raise StartFailed(
                    f"interface {joined.source} of plugin {spec.driver} is not on the host"
                )
            options = LinkOptions(
                name=endpoint.interface, netns_fd=netns_fd, up=False, mac=endpoint.mac
            )
            self._socket.request([rtnetlink.link_set(index=link.index, options=options)])
            self._sources[endpoint.endpoint_id] = joined.source
        interface.configure(netns_fd, endpoint, mac_is_derived=False)
        if joined.routes:
            interface.add_routes(netns_fd, endpoint.interface, joined.routes)
        return endpoint.mac or link.mac

    def publish(self, spec: NetworkSpec, endpoint: EndpointSpec) -> tuple[PortBinding, ...]:
        """See :meth:`Driver.publish`."""
        plugin = self._plugin(spec)
        _quietly(_call, plugin, "RevokeExternalConnectivity", **_ids(endpoint))
        return _publish(plugin, endpoint)

    def detach(
        self, spec: NetworkSpec, endpoint: EndpointSpec, netns_fd: int | None = None
    ) -> None:
        """See :meth:`Driver.detach`. A live container's interface goes back to the host, as the
        plugin made it, before the plugin is told."""
        with self._lock:
            source = self._sources.pop(endpoint.endpoint_id, "")
        if netns_fd is not None:
            interface.give_back(netns_fd, endpoint.interface, source)
        # A plugin that cannot be told now is told when we start the next time.
        with contextlib.suppress(SampanError):
            self._release(
                endpoint.endpoint_id, spec.driver, spec.id, published=bool(endpoint.ports)
            )

    def _release(self, endpoint_id: str, driver: str, network_id: str, *, published: bool) -> None:
        """Tell the plugin that an endpoint is over; the entry stays while it cannot be told."""
        ids = {"NetworkID": network_id, "EndpointID": endpoint_id}
        plugin = self._plugins.find(driver, INTERFACE)
        if published:
            _quietly(_call, plugin, "RevokeExternalConnectivity", **ids)
        # The first may have been done before: only a plugin that does not answer counts.
        _quietly(_call, plugin, "Leave", **ids)
        _quietly(_call, plugin, "DeleteEndpoint", **ids)
        self._forget(endpoint_id)

    def _forget(self, endpoint_id: str) -> None:
        self._journal.remove(endpoint_id)

    def observe(self) -> Observation:
        """See :meth:`Driver.observe`: the endpoints plugins hold for us."""
        return Observation(endpoints=frozenset(self._journal.list()))

    def converge(
        self, desired: Sequence[tuple[NetworkSpec, Sequence[EndpointSpec]]]
    ) -> tuple[str, ...]:
        """See :meth:`Driver.converge`: endpoints that are over are given back."""
        kept = {endpoint.endpoint_id for _, endpoints in desired for endpoint in endpoints}
        for endpoint_id in self._journal.list():
            if endpoint_id in kept:
                continue
            entry = self._journal.read(endpoint_id) or {}
            with contextlib.suppress(SampanError):  # tried again at the next start
                driver, network = str(entry.get("driver")), str(entry.get("network"))
                self._release(endpoint_id, driver, network, published=True)
        return ()

    def _plugin(self, spec: NetworkSpec) -> Plugin:
        return self._plugins.find(spec.driver, INTERFACE)


def _created(plugin: Plugin, endpoint: EndpointSpec) -> EndpointSpec:
    """Have the plugin make an endpoint; what it chose itself is filled in."""
    asked = {
        "Address": str(endpoint.ipv4 or ""),
        "AddressIPv6": str(endpoint.ipv6 or ""),
        "MacAddress": endpoint.mac,
    }
    answer = _call(
        plugin,
        "CreateEndpoint",
        **_ids(endpoint),
        Options={**_port_options(endpoint), **endpoint.options},
        Interface=asked,
    )
    told = answer.get("Interface")
    if not isinstance(told, dict):
        return endpoint
    addresses: list[IPInterface] = list(endpoint.addresses)
    for key in ("Address", "AddressIPv6"):
        if (text := told.get(key)) and not asked[key]:
            addresses.append(_parsed(plugin, key, str(text), ip_interface))
    return replace(
        endpoint,
        addresses=tuple(addresses),
        mac=endpoint.mac or str(told.get("MacAddress") or ""),
    )


def _join(plugin: Plugin, endpoint: EndpointSpec) -> Joined:
    answer = _call(
        plugin,
        "Join",
        **_ids(endpoint),
        SandboxKey=endpoint.sandbox,
        Options=_port_options(endpoint),
    )
    return parse_join(plugin, answer)


def parse_join(plugin: Plugin, answer: Answer) -> Joined:
    """The answer to ``Join``; raises :class:`SampanError` naming the plugin when it is wrong."""
    names = answer.get("InterfaceName")
    source = names.get("SrcName") if isinstance(names, dict) else None
    if not isinstance(source, str) or not _LINK_NAME.fullmatch(source):
        raise StartFailed(f"plugin {plugin.name} named no interface to connect")
    gateways = tuple(
        _parsed(plugin, key, str(answer[key]), ipam.parse_address)
        for key in ("Gateway", "GatewayIPv6")
        if answer.get(key)
    )
    routes = []
    told = answer.get("StaticRoutes")
    for route in told if isinstance(told, list) else []:
        if isinstance(route, dict) and route.get("Destination"):
            destination = str(route["Destination"])
            _parsed(plugin, "route", destination, ipam.parse_network)
            routes.append((destination, str(route.get("NextHop") or "")))
    prefix = str(names.get("DstPrefix") or "") if isinstance(names, dict) else ""
    return Joined(source=source, prefix=prefix, gateways=gateways, routes=tuple(routes))


def _named(endpoint: EndpointSpec, joined: Joined) -> str:
    """The interface's name in the container: the plugin's prefix and our number."""
    number = endpoint.interface.lstrip("abcdefghijklmnopqrstuvwxyz")
    if _IFNAME in endpoint.options or not number.isdecimal():
        return endpoint.interface
    name = f"{joined.prefix}{number}"
    return name if joined.prefix and _LINK_NAME.fullmatch(name) else endpoint.interface


def _parsed(plugin: Plugin, what: str, text: str, parse: Callable[[str], T]) -> T:
    try:
        return parse(text)
    except (ValueError, SampanError) as error:
        raise StartFailed(f"plugin {plugin.name} told an invalid {what}: {text!r}") from error


def _publish(plugin: Plugin, endpoint: EndpointSpec) -> tuple[PortBinding, ...]:
    """Have the plugin publish ports; one that cannot is told by name."""
    if not endpoint.ports:
        return ()
    try:
        _call(
            plugin,
            "ProgramExternalConnectivity",
            **_ids(endpoint),
            Options=_port_options(endpoint),
        )
    except NotFound as error:
        raise Unsupported(f"network driver {plugin.name} cannot publish ports") from error
    return endpoint.ports


def _port_options(endpoint: EndpointSpec) -> dict[str, object]:
    if not endpoint.ports:
        return {}
    return {
        _EXPOSED: [
            {"Proto": _PROTOCOL_NUMBERS[p.protocol], "Port": p.container_port}
            for p in endpoint.ports
        ],
        _PORT_MAP: [
            {
                "Proto": _PROTOCOL_NUMBERS[p.protocol],
                "IP": "",
                "Port": p.container_port,
                "HostIP": str(p.host_address or ""),
                "HostPort": p.host_port,
                "HostPortEnd": p.host_port_end or p.host_port,
            }
            for p in endpoint.ports
        ],
    }


def _pool(subnet: Subnet) -> dict[str, object]:
    length = subnet.prefix.prefixlen
    return {
        "AddressSpace": "LocalDefault",
        "Pool": str(subnet.prefix),
        "Gateway": f"{subnet.gateway}/{length}" if subnet.gateway is not None else "",
        "AuxAddresses": {name: f"{a}/{length}" for name, a in subnet.auxiliary.items()},
    }


def _ids(endpoint: EndpointSpec) -> dict[str, str]:
    return {"NetworkID": endpoint.network_id, "EndpointID": endpoint.endpoint_id}


def _call(plugin: Plugin, method: str, **body: object) -> Answer:
    try:
        return plugin.call(f"{INTERFACE}.{method}", body)
    except SampanError as error:
        raise type(error)(f"network driver {plugin.name}: {error.message}") from error


def _quietly(call: Callable[..., Answer], plugin: Plugin, method: str, **body: object) -> None:
    """A call that gives something back: a refusal changes nothing, and neither does a plugin
    that is gone, for its endpoints went with it."""
    with contextlib.suppress(SampanError):
        call(plugin, method, **body)


@contextlib.contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StartFailed(f"{what}: {error.strerror}") from error
