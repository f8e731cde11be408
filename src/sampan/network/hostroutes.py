"""Routes of the host: those it has, that no network of ours may collide with, and one of ours."""

from __future__ import annotations

from ipaddress import ip_address

from sampan.errors import Unavailable
from sampan.kernel import rtdump, rtnetlink
from sampan.kernel.netlink import Message, NetlinkSocket
from sampan.network.model import IPNetwork, NetworkSpec


def used_networks(skip_interfaces: frozenset[str] = frozenset()) -> tuple[IPNetwork, ...]:
    """Networks of the host's addresses and routes, default routes and link-local ones left out.

    ``skip_interfaces`` are bridges of our own, whose networks the caller knows anyway. Looks in
    the calling thread's network namespace.
    """
    try:
        with NetlinkSocket() as sock:
            skipped = {li.index for li in rtdump.links(sock) if li.name in skip_interfaces}
            found = {
                route.destination for route in rtdump.routes(sock) if route.index not in skipped
            }
            found |= {
                address.interface.network
                for address in rtdump.addresses(sock)
                if address.index not in skipped
            }
    except OSError as error:
        raise Unavailable(f"cannot read the host's routes: {error.strerror}") from error
    usable = [n for n in found if n.prefixlen and not n.is_link_local and not n.is_loopback]
    return tuple(sorted(usable, key=lambda n: (n.version, int(n.network_address), n.prefixlen)))


def loopback_route(index: int, spec: NetworkSpec) -> list[Message]:
    """Lets answers to connections from ``::1`` in by the bridge ``index``: what route_localnet is
    for IPv4.

    Nobody on the network gains by it: the kernel drops what says ``::1`` on the wire first.
    """
    if not spec.ipv6 or spec.internal:
        return []
    return [rtnetlink.local_route_add(ip_address("::1"), index, metric=4096)]
