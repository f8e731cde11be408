"""What addresses the host already uses, so that no network of ours collides with them."""

from __future__ import annotations

from sampan.errors import Unavailable
from sampan.kernel import rtdump
from sampan.kernel.netlink import NetlinkSocket
from sampan.network.model import IPNetwork


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
