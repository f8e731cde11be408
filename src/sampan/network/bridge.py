"""Networks on a Linux bridge of this host: the ``bridge`` driver.

Everything of ours carries one link group number, by which leftovers are found again after a
crash. A host interface's name follows from its endpoint's id.
"""

from __future__ import annotations

import contextlib
import errno
import queue
import socket
import threading
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from ipaddress import ip_interface
from typing import TypeAlias

from sampan.errors import Conflict, NotFound, SampanError, StartFailed, Unsupported
from sampan.kernel import rtdump, rtnetlink
from sampan.kernel.netlink import Message, NetlinkSocket
from sampan.kernel.rtnetlink import LinkOptions
from sampan.network import conntrack, interface, ipam, nft
from sampan.network.firewall import Firewall, NoFirewall
from sampan.network.firewalld import Firewalld
from sampan.network.hostforward import HostForwarding
from sampan.network.hostroutes import loopback_route
from sampan.network.hostsysctl import automatic_link_local, bridge_netfilter, prepare_bridge
from sampan.network.model import (
    EndpointSpec,
    EndpointStatus,
    HostPolicy,
    IPAddress,
    IPInterface,
    NetworkSpec,
    Observation,
    PortBinding,
)
from sampan.network.nft import Published
from sampan.network.ports import PortReservations
from sampan.network.relay import Relays, relayed, relays
from sampan.network.traffic import limit_message

_HOST_PREFIX = "veth"

#: For the reaper: a link's index to delete, UDP ports whose flows to forget, or whom to tell
#: that all before is done.
_Chore: TypeAlias = int | frozenset[int] | threading.Event


def link_group(instance: str) -> int:
    """The link group (ip-link(8)) that marks what the engine ``instance`` made."""
    return zlib.crc32(instance.encode()) & 0x7FFFFFFF | 0x100


def host_interface(endpoint_id: str) -> str:
    """The name of an endpoint's interface on the host's side: 15 bytes at most."""
    return f"{_HOST_PREFIX}{endpoint_id[:11]}"


class BridgeDriver:
    """The ``bridge`` driver; implements :class:`sampan.network.driver.Driver`.

    Works in the network namespace of the thread that makes it; methods must be called from
    threads of the same one.
    """

    def __init__(
        self,
        instance: str = "sampan",
        policy: HostPolicy | None = None,
    ) -> None:
        """``instance`` names the nftables table and marks links; two engines on one host need
        different ones. ``policy`` says what may be done to the host."""
        self._policy = policy or HostPolicy()
        self._group = link_group(instance)
        host = HostForwarding(instance, respect=self._policy.respect)
        self._firewall: Firewall | NoFirewall = (
            Firewall(instance, host=host, respect=self._policy.respect)
            if self._policy.rules
            else NoFirewall()
        )
        self._firewall.open()
        bus = self._policy.system_bus if self._policy.rules else ""
        self._zone = Firewalld(bus, respect=self._policy.respect)
        self._ports = PortReservations()
        self._relays = Relays()
        self._lock = threading.Lock()
        self._socket = NetlinkSocket()
        self._doomed: queue.SimpleQueue[_Chore | None] = queue.SimpleQueue()
        # Deleting a link waits for RCU, 15 ms, and a dump of the connection table takes as
        # long; nobody who starts or stops a container should wait for either.
        self._reaper = threading.Thread(target=self._reap, name="sampan-links", daemon=True)
        self._reaper.start()

    def close(self) -> None:
        """Release sockets and reservations; networks and rules stay for running containers."""
        if self._reaper.is_alive():
            self._doomed.put(None)
            self._reaper.join()
        self._relays.close()
        self._ports.close()
        self._zone.close()
        self._firewall.close()
        self._socket.close()

    # networks

    def ensure(self, spec: NetworkSpec) -> None:
        """See :meth:`Driver.ensure`. An existing bridge of that name is used, and kept on
        :meth:`remove` when it was not made by this driver."""
        with contextlib.ExitStack() as undo:
            if self._ensure_bridge(spec):
                undo.callback(self._delete_bridge, spec)
            self._firewall.add_network(spec)
            undo.pop_all()
        self._zone.update(self._firewall.bridges())

    def _ensure_bridge(self, spec: NetworkSpec) -> bool:
        """Make the bridge right; whether it is new. One that cannot be made right is not left."""
        with self._lock, _translated(f"cannot create bridge {spec.bridge}"):
            link = rtdump.link(self._socket, spec.bridge)
            if link is not None and link.kind != "bridge":
                raise Conflict(f"interface {spec.bridge} exists and is not a bridge")
            new = link is None
            if new:
                options = LinkOptions(
                    mtu=spec.mtu,
                    group=self._group,
                    # Fixed, or it would be its ports' lowest and change under its neighbours.
                    mac=ipam.mac_from_seed(f"bridge {spec.id}"),
                )
                self._socket.request([rtnetlink.bridge_add(spec.bridge, options)])
            try:
                # Before it is up: a container must not find it listening to its router
                # advertisements, even for a moment.
                prepare_bridge(spec, forwarding=self._policy.forwarding)
                self._socket.request(self._bridge_changes(spec))
            except BaseException:
                if new:
                    self._socket.attempt([rtnetlink.link_delete(spec.bridge)])
                raise
        return new

    def _bridge_changes(self, spec: NetworkSpec) -> list[Message]:
        link = rtdump.link(self._socket, spec.bridge)
        if link is None:
            raise Conflict(f"bridge {spec.bridge} disappeared while being created")
        up = LinkOptions(up=True, ipv6_link_local=automatic_link_local(spec.mtu))
        return [
            *self._address_changes(link, gateway_addresses(spec)),
            rtnetlink.link_set(index=link.index, options=up),
            *loopback_route(link.index, spec),
        ]

    def _address_changes(
        self, link: rtdump.Link, wanted: Sequence[IPInterface]
    ) -> Iterable[Message]:
        present = [a.interface for a in rtdump.addresses(self._socket) if a.index == link.index]
        if link.group == self._group:
            for address in present:
                if address not in wanted:
                    yield rtnetlink.address_delete(link.index, address)
        for address in wanted:
            if address not in present:
                yield rtnetlink.address_add(link.index, address)

    def remove(self, spec: NetworkSpec) -> None:
        """See :meth:`Driver.remove`."""
        self.flush()
        self._firewall.remove_network(spec.id)
        self._zone.update(self._firewall.bridges())
        self._delete_bridge(spec)

    def _delete_bridge(self, spec: NetworkSpec) -> None:
        with self._lock, _translated(f"cannot remove bridge {spec.bridge}"):
            link = rtdump.link(self._socket, spec.bridge)
            if link is not None and link.kind == "bridge" and link.group == self._group:
                self._socket.request([rtnetlink.link_delete(spec.bridge)])

    # endpoints

    def attach(self, spec: NetworkSpec, endpoint: EndpointSpec, netns_fd: int) -> EndpointStatus:
        """See :meth:`Driver.attach`."""
        mac = endpoint.mac or interface.default_mac(endpoint)
        with contextlib.ExitStack() as undo:
            undo.callback(self._withdraw, endpoint.endpoint_id)
            ports = self._reserve(spec, endpoint, endpoint.ports)
            undo.callback(self._doom, host_interface(endpoint.endpoint_id))
            bridge = self._plug(spec, endpoint, mac, netns_fd)
            interface.configure(
                netns_fd,
                endpoint,
                mac_is_derived=interface.is_mac_derived(endpoint, mac),
                advertisements=False,
                neighbours=self._introductions(spec, endpoint, bridge),
            )
            self._settle(spec, endpoint, bridge, mac)
            self._open(spec, endpoint, ports)
            undo.pop_all()
        return EndpointStatus(
            interface=endpoint.interface,
            mac=mac,
            host_interface=host_interface(endpoint.endpoint_id),
            ports=ports,
        )

    def _reserve(
        self, spec: NetworkSpec, endpoint: EndpointSpec, bindings: Sequence[PortBinding]
    ) -> tuple[PortBinding, ...]:
        if not bindings or spec.internal:
            return ()
        if spec.gateway_mode_ipv4 == "routed" and spec.gateway_mode_ipv6 == "routed":
            return tuple(replace(b, host_port=0, host_port_end=0) for b in bindings)
        bindings = [
            replace(b, host_address=spec.host_address) if b.host_address is None else b
            for b in bindings
        ]
        return self._ports.reserve(
            endpoint.endpoint_id,
            bindings,
            name=endpoint.container_name or endpoint.container_id[:12],
        )

    def _plug(
        self, spec: NetworkSpec, endpoint: EndpointSpec, mac: str, netns_fd: int
    ) -> rtdump.Link:
        """Make the pair of interfaces, one end in the bridge; returns the bridge."""
        name = host_interface(endpoint.endpoint_id)
        with self._lock, _translated(f"cannot connect to network {spec.name}"):
            bridge = rtdump.link(self._socket, spec.bridge)
        if bridge is None:
            raise StartFailed(f"bridge {spec.bridge} of network {spec.name} is gone")
        batch = [
            rtnetlink.veth_add(
                name,
                LinkOptions(mtu=spec.mtu, group=self._group),
                endpoint.interface,
                LinkOptions(netns_fd=netns_fd, mac=mac, mtu=spec.mtu),
            ),
            rtnetlink.link_set(
                name,
                LinkOptions(
                    up=True,
                    master=bridge.index,
                    alias=f"container {endpoint.container_name or endpoint.container_id[:12]}",
                    ipv6_link_local=automatic_link_local(spec.mtu),
                ),
            ),
        ]
        if (port := _port_options(spec, endpoint)) is not None:
            batch.append(rtnetlink.link_set(name, port))
        with self._lock, _translated(f"cannot connect to network {spec.name}"):
            if (errors := self._socket.attempt(batch)) and _is_exists(errors[0]):
                # What an earlier start of this endpoint left is on its way out: hurry it.
                self._socket.request([rtnetlink.link_delete(name)])
                errors = self._socket.attempt(batch)
            if failures := [error for error in errors if error is not None]:
                raise failures[0]
            if endpoint.limits.ingress:
                index = socket.if_nametoindex(name)
                self._socket.request([limit_message(index, endpoint.limits.ingress)])
        return bridge

    def _introductions(
        self, spec: NetworkSpec, endpoint: EndpointSpec, bridge: rtdump.Link
    ) -> dict[IPAddress, str]:
        """The bridge's MAC address for those gateways that are the bridge itself. One not made
        here may take another address with every port."""
        if bridge.group != self._group:
            return {}
        own = {address.ip for address in gateway_addresses(spec)}
        return {gateway: bridge.mac for gateway in endpoint.gateways if gateway in own}

    def _settle(
        self, spec: NetworkSpec, endpoint: EndpointSpec, bridge: rtdump.Link, mac: str
    ) -> None:
        """See to it that the first packet arrives: its repetition would come a second later.

        The kernel is to take the host's end and the bridge into service now (links that need
        longer are no failure), and to know the container's MAC address, in place of that of an
        earlier container with this address.
        """
        with self._lock, _translated(f"cannot connect to network {spec.name}"):
            rtdump.settle(self._socket, host_interface(endpoint.endpoint_id), spec.bridge)
            if any(subnet.gateway is not None for subnet in spec.subnets):
                self._socket.request(
                    [
                        rtnetlink.neighbour_add(bridge.index, address.ip, mac, permanent=False)
                        for address in endpoint.addresses
                    ]
                )

    def publish(self, spec: NetworkSpec, endpoint: EndpointSpec) -> tuple[PortBinding, ...]:
        """See :meth:`Driver.publish`."""
        self._withdraw(endpoint.endpoint_id)
        with contextlib.ExitStack() as undo:
            undo.callback(self._withdraw, endpoint.endpoint_id)
            ports = self._reserve(spec, endpoint, endpoint.ports)
            if (options := _port_options(spec, endpoint)) is not None:
                with self._lock, _translated(f"cannot publish ports on network {spec.name}"):
                    name = host_interface(endpoint.endpoint_id)
                    self._socket.request([rtnetlink.link_set(name, options)])
            self._open(spec, endpoint, ports)
            undo.pop_all()
        return ports

    def _open(
        self, spec: NetworkSpec, endpoint: EndpointSpec, ports: Sequence[PortBinding]
    ) -> None:
        """Let reserved ports lead to the container."""
        if ports:
            rows = nft.published(spec, endpoint, ports)
            self._firewall.publish(endpoint.endpoint_id, rows)
            self._forget_flows(rows)
            self._relay(spec, endpoint, ports)

    def _relay(
        self, spec: NetworkSpec, endpoint: EndpointSpec, ports: Sequence[PortBinding]
    ) -> None:
        """Pass on by hand what no rule can translate, to addresses that are translated at all."""
        if endpoint.ipv6 is None and not relays(spec):
            return
        found = relayed(endpoint, ports, loopback6=not bridge_netfilter(6))
        sockets = self._ports.sockets_of(endpoint.endpoint_id, [r.binding for r in found])
        self._relays.open(endpoint.endpoint_id, found, sockets)

    def detach(
        self, spec: NetworkSpec, endpoint: EndpointSpec, netns_fd: int | None = None
    ) -> None:
        """See :meth:`Driver.detach`. The host's interface goes in the background when the
        namespace is gone anyway, and at once when ``netns_fd`` is given."""
        self._withdraw(endpoint.endpoint_id)
        self._doom(host_interface(endpoint.endpoint_id))
        if netns_fd is not None:
            self.flush()

    def _withdraw(self, endpoint_id: str) -> None:
        """Publish nothing of an endpoint any more. Idempotent."""
        rows = self._firewall.unpublish(endpoint_id)
        self._relays.close_of(endpoint_id)
        self._ports.release(endpoint_id)
        self._forget_flows(rows)

    def _forget_flows(self, rows: Iterable[Published]) -> None:
        ports = frozenset(r.host_port for r in rows if r.protocol == "udp" and r.host_port)
        if ports:
            self._doomed.put(ports)

    def _doom(self, name: str) -> None:
        """Have the reaper delete this very link: by index, for its name may come again."""
        with contextlib.suppress(OSError):  # gone already
            self._doomed.put(socket.if_nametoindex(name))

    def flush(self) -> None:
        """Wait until every interface given up so far is deleted."""
        done = threading.Event()
        self._doomed.put(done)
        done.wait()

    def _reap(self) -> None:
        with NetlinkSocket() as sock:
            while (chore := self._doomed.get()) is not None:
                if isinstance(chore, threading.Event):
                    chore.set()
                elif isinstance(chore, int):
                    # A failure leaves a link that the next converge() finds by its group.
                    sock.attempt([rtnetlink.link_delete(index=chore)])
                else:
                    # A failure leaves entries that time out by themselves.
                    with contextlib.suppress(OSError):
                        conntrack.forget_udp_ports(chore)

    # reconciliation

    def observe(self) -> Observation:
        """See :meth:`Driver.observe`."""
        with self._lock, _translated("cannot list interfaces"):
            links = [li for li in rtdump.links(self._socket) if li.group == self._group]
        return Observation(
            networks=frozenset(link.name for link in links if link.kind == "bridge"),
            endpoints=frozenset(
                link.name
                for link in links
                if link.kind == "veth" and link.name.startswith(_HOST_PREFIX)
            ),
            ports=frozenset(
                (row.protocol, str(row.host_address or ""), row.host_port)
                for row in self._firewall.rows()
            ),
        )

    def converge(
        self, desired: Sequence[tuple[NetworkSpec, Sequence[EndpointSpec]]]
    ) -> tuple[str, ...]:
        """See :meth:`Driver.converge`. A network that cannot be made (an interface of its name
        is there) loses its endpoints; the others are kept."""
        lost: list[str] = []
        possible = []
        for spec, endpoints in desired:
            try:
                self._ensure_bridge(spec)
                possible.append((spec, endpoints))
            except SampanError:
                lost.extend(endpoint.endpoint_id for endpoint in endpoints)
        present = self.observe()
        kept: dict[str, tuple[Published, ...]] = {}
        self._relays.keep_only(e.endpoint_id for _, endpoints in possible for e in endpoints)
        self._ports.keep_only(e.endpoint_id for _, endpoints in possible for e in endpoints)
        for spec, endpoints in possible:
            for endpoint in endpoints:
                try:
                    kept[endpoint.endpoint_id] = self._readopt(spec, endpoint, present)
                except SampanError:
                    self._ports.release(endpoint.endpoint_id)
                    lost.append(endpoint.endpoint_id)
        self._firewall.replace([spec for spec, _ in possible], kept)
        self._zone.update(self._firewall.bridges())
        self._remove_strays(present, desired)
        return tuple(lost)

    def _readopt(
        self, spec: NetworkSpec, endpoint: EndpointSpec, present: Observation
    ) -> tuple[Published, ...]:
        """What a running endpoint publishes, its ports reserved again."""
        if host_interface(endpoint.endpoint_id) not in present.endpoints:
            raise NotFound(f"the host's interface of {endpoint.container_name} is gone")
        ports = self._ports.held(endpoint.endpoint_id)
        ports = ports or self._reserve(spec, endpoint, endpoint.ports)
        self._relay(spec, endpoint, ports)
        return nft.published(spec, endpoint, ports)

    def _remove_strays(
        self,
        present: Observation,
        desired: Sequence[tuple[NetworkSpec, Sequence[EndpointSpec]]],
    ) -> None:
        wanted = {spec.bridge for spec, _ in desired} | {
            host_interface(e.endpoint_id) for _, endpoints in desired for e in endpoints
        }
        strays = sorted(present.endpoints - wanted) + sorted(present.networks - wanted)
        with self._lock, _translated("cannot remove left-over interfaces"):
            self._socket.request([rtnetlink.link_delete(name) for name in strays])


def gateway_addresses(spec: NetworkSpec) -> list[IPInterface]:
    """The addresses the bridge itself has: each subnet's gateway, unless packets are not to
    reach the host at all (gateway mode ``isolated``)."""
    found = []
    for subnet in spec.subnets:
        mode = spec.gateway_mode_ipv4 if subnet.prefix.version == 4 else spec.gateway_mode_ipv6
        inhibited = spec.inhibit_ipv4 and subnet.prefix.version == 4
        if subnet.gateway is not None and mode != "isolated" and not inhibited:
            found.append(ip_interface(f"{subnet.gateway}/{subnet.prefix.prefixlen}"))
    if any(address.version == 6 for address in found):
        # Neighbour discovery for forwarded packets needs a link-local address, and the kernel's
        # own would be tentative for a second or two.
        found.append(ip_interface("fe80::1/64"))
    return found


def _port_options(spec: NetworkSpec, endpoint: EndpointSpec) -> LinkOptions | None:
    """How the bridge treats the endpoint's port, if differently from any port.

    Without ICC neighbours are kept apart by the bridge itself, unless br_netfilter shows
    bridged packets to our rules (the host's choice): these then do it, and isolation would
    also stop what was translated to a published port and is bridged from there. For the same
    reason a packet to one's own published port must be let out where it came in.
    """
    if not spec.icc and not bridge_netfilter(4):
        return LinkOptions(isolated_port=True)
    filtered = (endpoint.ipv4 is not None and bridge_netfilter(4)) or (
        endpoint.ipv6 is not None and bridge_netfilter(6)
    )
    if endpoint.ports and filtered:
        return LinkOptions(hairpin_port=True)
    return None


def _is_exists(error: OSError | None) -> bool:
    return error is not None and error.errno == errno.EEXIST


@contextlib.contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        detail = f"{what}: {error.strerror}" + (f" ({error.filename})" if error.filename else "")
        if error.errno == errno.EOPNOTSUPP:
            raise Unsupported(detail) from error
        if error.errno in (errno.EEXIST, errno.EADDRINUSE, errno.EBUSY):
            raise Conflict(detail) from error
        raise StartFailed(detail) from error
