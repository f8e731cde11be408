"""The container's side of a connection: addresses, routes, sysctls inside its namespace.

Order matters: sysctls first (an interface without IPv6 never makes a link-local address), then
one batch: loopback up, addresses, interface up, routes.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Interface, IPv6Network, ip_address, ip_network

from sampan.errors import InvalidParameter, NotFound, StartFailed
from sampan.kernel import netns, rtdump, rtnetlink
from sampan.kernel.netlink import Message, NetlinkSocket
from sampan.kernel.rtnetlink import LinkOptions
from sampan.network import ipam
from sampan.network.model import (
    EndpointSpec,
    InterfaceStatistics,
    IPAddress,
    IPInterface,
    RateLimit,
)
from sampan.network.traffic import limit_message

_LOOPBACK = 1
_ANYWHERE: Mapping[int, IPv4Network | IPv6Network] = {
    4: ip_network("0.0.0.0/0"),
    6: ip_network("::/0"),
}


def endpoint_sysctls(
    endpoint: EndpointSpec, *, mac_is_derived: bool, advertisements: bool = True
) -> dict[str, str]:
    """The sysctls of an endpoint's interface, in the order to write them (pure).

    An interface without an IPv6 address has IPv6 off. One whose MAC address does not follow
    from its IPv4 address announces itself (arp_notify, ndisc_notify), because neighbours may
    remember another one. Without ``advertisements`` it does not take routes from whoever says on
    the network to be a router. Raises :class:`InvalidParameter` for a name that is not about the
    endpoint's own interface.
    """
    interface = endpoint.interface.replace(".", "/")
    values = {}
    if endpoint.ipv6 is None and not any(a.version == 6 for a in endpoint.link_local):
        values[f"net.ipv6.conf.{interface}.disable_ipv6"] = "1"
    else:
        if not mac_is_derived:
            values[f"net.ipv6.conf.{interface}.ndisc_notify"] = "1"
        if not advertisements:
            values[f"net.ipv6.conf.{interface}.accept_ra"] = "0"
    if endpoint.ipv4 is not None and not mac_is_derived:
        values[f"net.ipv4.conf.{interface}.arp_notify"] = "1"
    for name, value in endpoint.sysctls.items():
        parts = name.split(".")
        if len(parts) != 5 or parts[0] != "net" or parts[3] != "IFNAME":
            raise InvalidParameter(f"invalid endpoint sysctl {name!r}: expected net.X.Y.IFNAME.Z")
        parts[3] = interface
        values[".".join(parts)] = value
    return values


def configure(
    netns_fd: int,
    endpoint: EndpointSpec,
    *,
    mac_is_derived: bool = True,
    advertisements: bool = True,
    neighbours: Mapping[IPAddress, str] | None = None,
) -> None:
    """Bring the endpoint's interface, which is in ``netns_fd`` already, into service.

    ``neighbours`` are MAC addresses it need not ask for first. The flags are those of
    :func:`endpoint_sysctls`. Packets go through when this returns. Raises :class:`StartFailed`
    naming what could not be done.
    """
    sysctls = endpoint_sysctls(
        endpoint, mac_is_derived=mac_is_derived, advertisements=advertisements
    )
    try:
        with contextlib.ExitStack() as opened:
            with netns.entered(netns_fd):
                sock = opened.enter_context(NetlinkSocket())
                _write(sysctls, endpoint)
            link = rtdump.link(sock, endpoint.interface)
            if link is None:
                raise StartFailed(f"interface {endpoint.interface} is not in the container")
            introductions = [
                rtnetlink.neighbour_add(link.index, address, mac, permanent=False)
                for address, mac in (neighbours or {}).items()
            ]
            sock.request([*_messages(link.index, endpoint), *introductions])
            rtdump.settle(sock, endpoint.interface)
            rtdump.settle_addresses(
                sock, *(a.ip for a in endpoint.addresses if isinstance(a, IPv6Interface))
            )
    except OSError as error:
        raise StartFailed(
            f"cannot configure {endpoint.interface}: {error.filename or ''}: {error.strerror}"
        ) from error


def _write(sysctls: Mapping[str, str], endpoint: EndpointSpec) -> None:
    for name, value in sysctls.items():
        try:
            netns.write_sysctls({name: value})
        except FileNotFoundError:
            # Our own defaults are about IPv6, which the kernel may not have; the user's count.
            if name.replace(endpoint.interface.replace(".", "/"), "IFNAME") in endpoint.sysctls:
                raise


def _messages(index: int, endpoint: EndpointSpec) -> list[Message]:
    batch = [rtnetlink.link_set(index=_LOOPBACK, options=LinkOptions(up=True))]
    batch.extend(
        rtnetlink.address_add(index, address)
        for address in (*endpoint.addresses, *endpoint.link_local)
    )
    batch.append(rtnetlink.link_set(index=index, options=LinkOptions(up=True)))
    batch.extend(default_routes(index, endpoint.addresses, endpoint.gateways))
    if endpoint.limits.egress:
        batch.append(limit_message(index, endpoint.limits.egress))
    return batch


def default_routes(
    index: int, addresses: Sequence[IPInterface], gateways: Sequence[IPAddress]
) -> list[Message]:
    """Default routes through ``gateways``; one outside the interface's subnets is made
    reachable on the link first."""
    batch = []
    for gateway in gateways:
        if not any(gateway in address.network for address in addresses):
            host = ip_network(f"{gateway}/{gateway.max_prefixlen}")
            batch.append(rtnetlink.route_add(host, index=index))
        batch.append(rtnetlink.route_add(_ANYWHERE[gateway.version], gateway=gateway, index=index))
    return batch


@contextlib.contextmanager
def _socket(netns_fd: int, doing: str) -> Iterator[NetlinkSocket]:
    """A socket inside the namespace; what fails meanwhile is that we cannot do what we are at."""
    try:
        with netns.entered(netns_fd):
            sock = NetlinkSocket()
        with sock:
            yield sock
    except OSError as error:
        raise StartFailed(f"cannot {doing}: {error.strerror}") from error


def _link(sock: NetlinkSocket, interface: str) -> rtdump.Link:
    link = rtdump.link(sock, interface)
    if link is None:
        raise NotFound(f"interface {interface} is not in the container")
    return link


def add_routes(netns_fd: int, interface: str, routes: Sequence[tuple[str, str]]) -> None:
    """Routes through ``interface``: (destination, next hop or "" for what is on the link)."""
    with _socket(netns_fd, f"add routes through {interface}") as sock:
        link = _link(sock, interface)
        sock.request(
            [
                rtnetlink.route_add(
                    ip_network(destination, strict=False),
                    gateway=ip_address(hop) if hop else None,
                    index=link.index,
                )
                for destination, hop in routes
            ]
        )


def give_back(netns_fd: int, name: str, host_name: str) -> None:
    """Move an interface out of ``netns_fd`` to the calling thread's namespace, named
    ``host_name`` again; idempotent. Without a name it is deleted."""
    if not host_name:
        delete(netns_fd, name)
        return
    home = netns.current()
    try:
        with _socket(netns_fd, f"move {name} back") as sock:
            link = rtdump.link(sock, name)
            if link is not None:
                options = LinkOptions(up=False, name=host_name, netns_fd=home)
                sock.request([rtnetlink.link_set(index=link.index, options=options)])
    finally:
        os.close(home)


def loopback_up(netns_fd: int) -> None:
    """Bring the loopback interface of ``netns_fd`` up and nothing else (``--network none``)."""
    with _socket(netns_fd, "bring lo up") as sock:
        sock.request([rtnetlink.link_set(index=_LOOPBACK, options=LinkOptions(up=True))])


def delete(netns_fd: int, name: str) -> None:
    """Delete an interface inside ``netns_fd``; idempotent."""
    with _socket(netns_fd, f"remove {name}") as sock:
        sock.request([rtnetlink.link_delete(name)])


def set_gateways(netns_fd: int, endpoints: Sequence[EndpointSpec]) -> None:
    """Give a running container its default routes anew: those of ``endpoints``
    (:func:`sampan.network.priority.with_gateways` chose them), in place of any others.

    Raises :class:`NotFound` when the interface is not there, :class:`StartFailed` otherwise.
    """
    with _socket(netns_fd, "change the default route") as sock:
        batch = [
            rtnetlink.route_delete(
                route.destination,
                gateway=route.gateway,
                index=route.index,
                metric=route.metric,
            )
            for route in rtdump.routes(sock)
            if route.destination.prefixlen == 0
        ]
        for endpoint in endpoints:
            if endpoint.gateways:
                index = _link(sock, endpoint.interface).index
                batch += default_routes(index, endpoint.addresses, endpoint.gateways)
        sock.request(batch)


def set_egress_limit(netns_fd: int, interface: str, limits: RateLimit) -> None:
    """Limit what the container sends through ``interface``."""
    with _socket(netns_fd, f"limit {interface}") as sock:
        link = _link(sock, interface)
        sock.request([limit_message(link.index, limits.egress)])


def statistics(netns_fd: int) -> dict[str, InterfaceStatistics]:
    """Counters of every interface but loopback, by name, for ``docker stats``.

    Raises :class:`NotFound` when the namespace is gone.
    """
    try:
        with netns.entered(netns_fd):
            sock = NetlinkSocket()
        with sock:
            links = rtdump.links(sock, statistics=True)
    except OSError as error:
        raise NotFound(f"cannot read network statistics: {error.strerror}") from error
    # rtnl_link_stats64: rx_packets, tx_packets, rx_bytes, tx_bytes, rx_errors, tx_errors,
    # rx_dropped, tx_dropped
    return {
        link.name: InterfaceStatistics(
            rx_packets=link.statistics[0],
            tx_packets=link.statistics[1],
            rx_bytes=link.statistics[2],
            tx_bytes=link.statistics[3],
            rx_errors=link.statistics[4],
            tx_errors=link.statistics[5],
            rx_dropped=link.statistics[6],
            tx_dropped=link.statistics[7],
        )
        for link in links
        if link.index != _LOOPBACK and len(link.statistics) >= 8
    }


def default_mac(endpoint: EndpointSpec) -> str:
    """An endpoint's MAC address when none was asked for."""
    if endpoint.ipv4 is not None:
        return ipam.mac_from_ipv4(endpoint.ipv4.ip)
    return ipam.mac_from_seed(endpoint.endpoint_id)


def is_mac_derived(endpoint: EndpointSpec, mac: str) -> bool:
    """Whether ``mac`` follows from the endpoint's IPv4 address."""
    return endpoint.ipv4 is not None and mac == ipam.mac_from_ipv4(endpoint.ipv4.ip)
