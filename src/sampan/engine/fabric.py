"""The engine's side of networks: their rows, address leases, and who performs what.

Addresses are leased in memory the moment a start is planned and written with the endpoint before
the program runs; a lease without a row dies with the process that held it.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from ipaddress import ip_interface

import msgspec

from sampan.engine.endpointwishes import (
    check_settings,
    chosen_names,
    free_name,
    link_local,
    pool_wishes,
    requested_addresses,
)
from sampan.engine.networkrecord import (
    NetworkRecord,
    StoredEndpoint,
    endpoint_sysctls,
    load_endpoint,
    store_endpoint,
)
from sampan.engine.record import Record
from sampan.engine.state import Statement
from sampan.engine.table import Container
from sampan.errors import Conflict, Forbidden, InvalidParameter, NoSpace, NotFound, StartFailed
from sampan.network import ipam
from sampan.network.dns import Host, Zone, zone
from sampan.network.driver import Driver
from sampan.network.drivers import Drivers
from sampan.network.interface import loopback_up
from sampan.network.model import (
    EndpointSpec,
    EndpointStatus,
    IPAddress,
    IPInterface,
    NetworkSpec,
    PortBinding,
)
from sampan.network.options import endpoint_limits, interface_name
from sampan.network.priority import Connection, with_gateways
from sampan.network.publish import port_bindings
from sampan.network.remoteipam import RemoteAddresses
from sampan.network.resolver import Resolver
from sampan.wire.container import EndpointSettings

#: networks that are there always and cannot be removed
PREDEFINED = ("bridge", "host", "none")


@dataclass(slots=True, eq=False, kw_only=True)
class Network:
    """One network: its row and the value its driver gets."""

    record: NetworkRecord
    spec: NetworkSpec
    #: endpoints being given back: its row goes after theirs
    leaving: set[asyncio.Future[None]] = field(default_factory=set)

    @property
    def id(self) -> str:
        """The full id."""
        return self.record.id

    @property
    def name(self) -> str:
        """The name."""
        return self.record.name

    @property
    def plugged(self) -> bool:
        """Whether endpoints are something a driver makes (host, none and ns have nothing)."""
        return self.record.driver not in ("host", "null", "none", "ns")

    @property
    def ipam_driver(self) -> str:
        """The plugin that manages its addresses, "" when we do."""
        driver = self.record.ipam.driver if self.record.ipam is not None else ""
        return driver if driver not in (None, "default", "null") else ""

    @property
    def resolved(self) -> bool:
        """Whether its containers find each other by name: all but the default bridge's do."""
        return self.plugged and self.name != "bridge"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plug:
    """One endpoint of a container with its network and what the user asked for."""

    network: Network
    endpoint: EndpointSpec
    settings: EndpointSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolverPlug:
    """How the embedded resolver serves one container: where it looks and whom it asks."""

    networks: tuple[str, ...]
    upstream: tuple[str, ...]
    from_host: bool
    own: Zone | None = None


class Fabric:
    """All networks of one engine; the loop's thread owns the tables."""

    def __init__(self, drivers: Drivers, resolver: Resolver, addresses: RemoteAddresses) -> None:
        self.drivers = drivers
        self.addresses = addresses
        self.resolver = resolver
        self.networks: dict[str, Network] = {}
        self._leases: dict[str, dict[IPAddress, str]] = {}
        self._hosts: dict[str, dict[str, Host]] = {}

    # networks

    def add(self, network: Network) -> None:
        """Make a network findable."""
        self.networks[network.id] = network
        self._leases.setdefault(network.id, {})

    def discard(self, network: Network) -> None:
        """Forget a network."""
        self.networks.pop(network.id, None)
        self._hosts.pop(network.id, None)
        self.resolver.remove_zone(network.id)
        self._leases.pop(network.id, None)

    def find(self, ref: str) -> Network:
        """The network ``ref`` names: id, then name, then unique id prefix; NotFound."""
        if (found := self.networks.get(ref)) is not None:
            return found
        for network in self.networks.values():
            if network.name == ref:
                return network
        matches = [n for n in self.networks.values() if ref and n.id.startswith(ref)]
        if len(matches) > 1:
            raise InvalidParameter(f"network {ref} is ambiguous ({len(matches)} matches found)")
        if not matches:
            raise NotFound(f"network {ref} not found")
        return matches[0]

    def leases(self, network: Network) -> Mapping[IPAddress, str]:
        """Addresses in use on a network, by endpoint id."""
        return self._leases.get(network.id, {})

    # endpoints

    def plan(self, container: Container) -> tuple[Plug, ...]:
        """Lease what a start needs; raises NotFound, Conflict, NoSpace and keeps nothing then."""
        host = container.record.host_config
        if (host.network_mode or "").startswith(
            "container:"
        ) or container.record.config.network_disabled:
            return ()
        plugs: list[Plug] = []
        # The mode's first, also when it was disconnected and connected again meanwhile.
        wanted = [
            (self.find(name), settings)
            for name, settings in sorted(
                container.record.networks.items(), key=lambda item: item[0] != host.network_mode
            )
        ]
        try:
            names = set(chosen_names(settings for _, settings in wanted))
            for network, settings in wanted:
                check_usable(network)
                if network.plugged:
                    name = free_name(network.spec.container_interface_prefix, names)
                    plugs.append(self.lease(container, network, settings, name))
                    names.add(plugs[-1].endpoint.interface)
        except BaseException:
            self.release(plugs)
            raise
        return with_routes(container.record, plugs)

    def lease(
        self,
        container: Container,
        network: Network,
        settings: EndpointSettings,
        interface: str,
    ) -> Plug:
        """Lease the addresses of one endpoint; :func:`with_routes` decides default routes."""
        record = container.record
        check_settings(network, settings)
        wishes = requested_addresses(network, settings)
        local = link_local(settings)
        endpoint_id = os.urandom(32).hex()
        leased = self._leases[network.id]
        addresses: list[IPInterface] = []
        try:
            for subnet in network.spec.subnets if not network.ipam_driver else ():
                wish = wishes.get(subnet.prefix.version)
                if wish is not None and wish not in subnet.prefix:
                    continue
                if any(a.version == subnet.prefix.version for a in addresses):
                    continue
                address = ipam.allocate(subnet, leased, wish)
                leased[address] = endpoint_id
                addresses.append(ip_interface(f"{address}/{subnet.prefix.prefixlen}"))
            if network.record.driver == "cni":
                addresses += [ip_interface(wish) for wish in wishes.values()]
        except BaseException:
            for held in addresses:
                leased.pop(held.ip, None)
            raise
        options = settings.driver_opts or {}
        endpoint = EndpointSpec(
            endpoint_id=endpoint_id,
            container_id=record.id,
            network_id=network.id,
            container_name=record.name,
            interface=interface_name(options) or interface,
            mac=settings.mac_address or "",
            addresses=tuple(addresses),
            link_local=local,
            sysctls=endpoint_sysctls(options),
            limits=endpoint_limits(network.spec, options),
            priority=settings.gw_priority or 0,
            options=options,
        )
        return Plug(network=network, endpoint=endpoint, settings=settings)

    def hold(self, plug: Plug) -> None:
        """Take the leases of an endpoint found in its row."""
        for address in plug.endpoint.addresses:
            self._leases[plug.network.id][address.ip] = plug.endpoint.endpoint_id

    def release(self, plugs: Iterable[Plug]) -> None:
        """Give the leases of endpoints back: once their interfaces are gone, for the next
        container gets these addresses."""
        for plug in plugs:
            leased = self._leases.get(plug.network.id, {})
            self.leave(plug.endpoint.container_id, [plug])
            for address in plug.endpoint.addresses:
                if leased.get(address.ip) == plug.endpoint.endpoint_id:
                    del leased[address.ip]

    # performing; these block

    def attach(
        self, plugs: Sequence[Plug], pid: int, undo: ExitStack, record: Record
    ) -> tuple[Plug, ...]:
        """Plug all endpoints of a container into the network namespace of ``pid``; returns them
        as they became."""
        if any(plug.network.ipam_driver for plug in plugs):
            plugs = with_routes(record, self.addressed(plugs, undo))
        try:
            return self.plug_in(plugs, pid, undo) if plugs else ()
        except StartFailed as error:
            text = f"failed to set up container networking: {error.message}"
            raise StartFailed(text) from error

    def isolate(self, pid: int) -> None:
        """Give the new network namespace of ``pid`` what one without any network has: loopback."""
        namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            loopback_up(namespace)
        finally:
            os.close(namespace)

    def plug_in(self, plugs: Sequence[Plug], pid: int, undo: ExitStack) -> tuple[Plug, ...]:
        """:meth:`attach` for endpoints whose addresses and routes are decided."""
        done = []
        namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            for plug in plugs:
                driver = self.drivers.find(plug.network.record.driver)
                asked = replace(plug.endpoint, sandbox=f"/proc/{pid}/ns/net")
                status = _attached(driver, plug.network.spec, asked, namespace)
                endpoint = replace(
                    plug.endpoint,
                    interface=status.interface,
                    mac=status.mac,
                    ports=status.ports or asked.ports,
                    addresses=asked.addresses if status.addresses is None else status.addresses,
                    gateways=asked.gateways if status.gateways is None else status.gateways,
                )
                undo.callback(driver.detach, plug.network.spec, endpoint)
                done.append(replace(plug, endpoint=endpoint))
        finally:
            os.close(namespace)
        return tuple(done)

    def addressed(self, plugs: Sequence[Plug], undo: ExitStack) -> list[Plug]:
        """The endpoints with the addresses that plugins give."""
        found = []
        for plug in plugs:
            network, endpoint = plug.network, plug.endpoint
            if network.ipam_driver:
                undo.callback(self.addresses.release_endpoint, endpoint.endpoint_id)
                addresses = self.addresses.request_endpoint(
                    endpoint.endpoint_id,
                    network.ipam_driver,
                    pool_wishes(network, plug.settings),
                    endpoint.mac,
                )
                plug = replace(plug, endpoint=replace(endpoint, addresses=addresses))
            found.append(plug)
        return found

    def detach(self, plugs: Iterable[Plug], pid: int | None = None) -> None:
        """Undo :meth:`attach`; ``pid`` None when the namespace is gone."""
        for plug in plugs:
            driver = self.drivers.holder(plug.network.record.driver)
            if pid is None:
                driver.detach(plug.network.spec, plug.endpoint)
            else:
                endpoint = replace(plug.endpoint, sandbox=f"/proc/{pid}/ns/net")
                namespace = os.open(endpoint.sandbox, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    driver.detach(plug.network.spec, endpoint, namespace)
                finally:
                    os.close(namespace)
            if plug.network.ipam_driver:
                self.addresses.release_endpoint(plug.endpoint.endpoint_id)

    def resolve_for(self, container_id: str, pid: int, names: ResolverPlug) -> None:
        """Serve names to a container in its own network namespace. Blocks."""
        namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            self.resolver.plug(
                container_id,
                namespace,
                networks=names.networks,
                upstream=names.upstream,
                from_host=names.from_host,
                own=names.own,
            )
        finally:
            os.close(namespace)

    # names

    def enter(self, container: Container, plugs: Iterable[Plug]) -> None:
        """Make a container findable by name on its networks."""
        for plug in plugs:
            if plug.network.resolved:
                hosts = self._hosts.setdefault(plug.network.id, {})
                hosts[container.id] = Host(
                    names=tuple(dns_names(container.record, plug.settings)),
                    addresses=tuple(a.ip for a in plug.endpoint.addresses),
                )
                self._publish(plug.network)

    def leave(self, container_id: str, plugs: Iterable[Plug]) -> None:
        """Take a container's names away from its networks."""
        for plug in plugs:
            hosts = self._hosts.get(plug.network.id, {})
            if hosts.pop(container_id, None) is not None:
                self._publish(plug.network)

    def _publish(self, network: Network) -> None:
        hosts = self._hosts.get(network.id, {})
        self.resolver.set_zone(network.id, zone(network.name, hosts.values()))

    # rows

    def insert_endpoints(self, container_id: str, plugs: Iterable[Plug]) -> list[Statement]:
        """The rows of endpoints and of their addresses."""
        statements: list[Statement] = []
        for plug in plugs:
            endpoint = plug.endpoint
            stored = msgspec.json.encode(store_endpoint(endpoint, plug.settings))
            statements.append(
                (
                    "INSERT INTO endpoints (id, container, network, document) VALUES (?, ?, ?, ?)",
                    (endpoint.endpoint_id, container_id, plug.network.id, stored),
                )
            )
            statements.extend(
                (
                    "INSERT INTO addresses (network, address, endpoint) VALUES (?, ?, ?)",
                    (plug.network.id, str(address.ip), endpoint.endpoint_id),
                )
                for address in endpoint.addresses
            )
        return statements

    def update_endpoints(self, plugs: Iterable[Plug]) -> list[Statement]:
        """Store endpoints whose routes or ports changed."""
        return [
            (
                "UPDATE endpoints SET document = ? WHERE id = ?",
                (
                    msgspec.json.encode(store_endpoint(plug.endpoint, plug.settings)),
                    plug.endpoint.endpoint_id,
                ),
            )
            for plug in plugs
        ]

    def delete_endpoints(self, plugs: Iterable[Plug]) -> list[Statement]:
        """Remove endpoint rows; their addresses go with them."""
        return [
            ("DELETE FROM endpoints WHERE id = ?", (plug.endpoint.endpoint_id,)) for plug in plugs
        ]

    def load(self, document: bytes) -> Plug | None:
        """The endpoint of a row; None when its network is not known."""
        stored = msgspec.json.decode(document, type=StoredEndpoint)
        network = self.networks.get(stored.network_id)
        if network is None:
            return None
        return Plug(network=network, endpoint=load_endpoint(stored), settings=stored.settings)


def _attached(
    driver: Driver, spec: NetworkSpec, endpoint: EndpointSpec, namespace: int
) -> EndpointStatus:
    try:
        return driver.attach(spec, endpoint, namespace)
    except (Conflict, NoSpace) as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno == errno.EEXIST:
            raise StartFailed(
                f"error renaming interface to {endpoint.interface}: file exists: {error.message}"
            ) from error
        # Otherwise others have the host's ports.
        raise StartFailed(
            "driver failed programming external connectivity on endpoint "
            f"{endpoint.container_name} ({endpoint.endpoint_id}): {error.message}"
        ) from error


def check_usable(network: Network) -> None:
    """Refuse a network that is but a configuration."""
    if network.record.config_only:
        raise Forbidden(
            f"container cannot be connected to network {network.name}: it is a "
            "configuration-only network"
        )


def dns_names(record: Record, settings: EndpointSettings) -> list[str]:
    """The names other containers on the network find this one by."""
    names = [record.name, *(settings.aliases or []), record.id[:12], record.hostname]
    return list(dict.fromkeys(name for name in names if name))


def with_routes(
    record: Record, plugs: Sequence[Plug], held: Sequence[PortBinding] = ()
) -> tuple[Plug, ...]:
    """Endpoints with the default routes each provides, ports on the one that provides IPv4's.

    ``held`` are the ports that are published now: those keep their host ports.
    """
    connections = [Connection(network=p.network.spec, endpoint=p.endpoint) for p in plugs]
    host = record.host_config
    published = port_bindings(
        host.port_bindings,
        record.config.exposed_ports or (),
        publish_all=bool(host.publish_all_ports),
    )
    if held:
        pairs = zip(held, published, strict=True)
        published = tuple(now if now.host_port else wished for now, wished in pairs)
    done = []
    for plug, endpoint in zip(plugs, with_gateways(connections), strict=True):
        if endpoint.gateways and published:
            endpoint, published = replace(endpoint, ports=published), ()
        done.append(replace(plug, endpoint=endpoint))
    for number, plug in enumerate(done):
        # The plugins of such a network decide about routes themselves.
        if published and plug.network.record.driver == "cni":
            done[number] = replace(plug, endpoint=replace(plug.endpoint, ports=published))
            published = ()
    return tuple(done)
