"""macvlan, ipvlan, VXLAN between hosts, and the drivers that make nothing."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from ipaddress import ip_address, ip_interface

import pytest

from sampan.errors import InvalidParameter, NotFound, Unsupported
from sampan.kernel import netns, rtdump, rtnetlink
from sampan.kernel.netlink import NetlinkSocket
from sampan.kernel.rtnetlink import LinkOptions
from sampan.network import ipam
from sampan.network.drivers import Drivers
from sampan.network.model import NetworkSpec
from sampan.network.options import network_spec

from .conftest import HOST4, OUTSIDE4, World, make_endpoint


def spec_of(driver: str, subnet: str, **options: str) -> NetworkSpec:
    return network_spec(
        id=f"{len(options):02x}" + driver.encode().hex().ljust(62, "0"),
        name=f"test-{driver}",
        driver=driver,
        subnets=[ipam.make_subnet(ipam.parse_network(subnet))],
        options=options,
    )


def test_macvlan_is_on_the_parents_network_and_not_on_the_hosts(world: World) -> None:
    with contextlib.closing(Drivers("other")) as drivers:
        net = spec_of("macvlan", "203.0.113.0/24", parent="uplink")
        drivers["macvlan"].ensure(net)
        one, two = world.namespace(), world.namespace()
        first, second = make_endpoint(net, 10), make_endpoint(net, 11)
        assert drivers["macvlan"].attach(net, first, one).mac == "02:42:cb:00:71:0a"
        drivers["macvlan"].attach(net, second, two)
        world.serve(world.outside, 80, "outside")
        world.serve(two, 80, "two")
        world.serve(world.host, 80, "host")
        assert world.ask(one, OUTSIDE4, 80) == "outside 203.0.113.10"
        assert world.ask(one, "203.0.113.11", 80) == "two 203.0.113.10"
        assert world.unreachable(one, HOST4, 80)
        for _ in range(2):
            drivers["macvlan"].detach(net, first, one)
        drivers["macvlan"].remove(net)  # leaves the host's interface alone
        with NetlinkSocket() as sock:
            assert rtdump.link(sock, "uplink") is not None
        with pytest.raises(InvalidParameter, match="parent interface eth77 was not found"):
            drivers["macvlan"].ensure(spec_of("macvlan", "10.0.0.0/24", parent="eth77"))
        for driver in ("macvlan", "ipvlan"):
            with pytest.raises(InvalidParameter, match=f"not a valid {driver} parent link"):
                drivers[driver].ensure(spec_of(driver, "10.0.0.0/24", parent="lo"))


def test_macvlan_without_parent_connects_containers_only(world: World) -> None:
    with contextlib.closing(Drivers("other")) as drivers:
        net = spec_of("macvlan", "10.9.0.0/24")
        drivers["macvlan"].ensure(net)
        one, two = world.namespace(), world.namespace()
        for number, fd in ((2, one), (3, two)):
            drivers["macvlan"].attach(net, make_endpoint(net, number, gateways=()), fd)
        world.serve(two, 80, "two")
        assert world.ask(one, "10.9.0.3", 80) == "two 10.9.0.2"
        assert drivers["macvlan"].observe().networks
        drivers["macvlan"].converge([])
        assert not drivers["macvlan"].observe().networks


def test_ipvlan_works_or_says_what_the_kernel_lacks(world: World) -> None:
    with contextlib.closing(Drivers("other")) as drivers:
        net = spec_of("ipvlan", "203.0.113.0/24", parent="uplink")
        if not has_ipvlan():
            with pytest.raises(Unsupported, match="this kernel has no ipvlan interfaces"):
                drivers["ipvlan"].ensure(net)
            return
        drivers["ipvlan"].ensure(net)
        fd = world.namespace()
        world.serve(world.outside, 80, "outside")
        endpoint = make_endpoint(net, 10)
        drivers["ipvlan"].attach(net, endpoint, fd)
        assert world.ask(fd, OUTSIDE4, 80) == "outside 203.0.113.10"


def has_ipvlan() -> bool:
    return has_links("ipvlan")


def has_links(kind: str) -> bool:
    """Whether the kernel has links of a kind."""
    refusal = subprocess.run(["ip", "link", "add", "type", kind], capture_output=True)
    return b"Unknown device type" not in refusal.stderr


def test_a_vlan_of_the_parent_is_made_and_removed(world: World) -> None:
    with contextlib.closing(Drivers("other")) as drivers:
        net = spec_of("macvlan", "10.9.10.0/24", parent="uplink.10")
        if not has_links("vlan"):
            with pytest.raises(Unsupported, match=r"this kernel cannot create vlan uplink\.10"):
                drivers["macvlan"].ensure(net)
            return
        with netns.entered(world.outside), NetlinkSocket() as sock:
            index = socket.if_nametoindex("uplink")
            sock.request([rtnetlink.vlan_add("uplink.10", index, 10, LinkOptions(up=True))])
            tagged = socket.if_nametoindex("uplink.10")
            sock.request([rtnetlink.address_add(tagged, ip_interface("10.9.10.99/24"))])
        world.serve(world.outside, 80, "outside")
        drivers["macvlan"].ensure(net)
        assert drivers["macvlan"].observe().networks == {"uplink.10"}
        fd = world.namespace()
        drivers["macvlan"].attach(net, make_endpoint(net, 2, gateways=()), fd)
        assert world.ask(fd, "10.9.10.99", 80) == "outside 10.9.10.2"
        drivers["macvlan"].remove(net)
        assert not drivers["macvlan"].observe().networks


def test_a_parent_that_is_gone_costs_no_other_network(world: World) -> None:
    with contextlib.closing(Drivers("other")) as drivers:
        lost = spec_of("macvlan", "10.9.0.0/24", parent="gone0")
        kept = NetworkSpec(id="b" * 12, name="kept", driver="macvlan")
        endpoint = make_endpoint(lost, 2)
        pairs = [(lost, [endpoint]), (kept, [make_endpoint(kept, 3, addresses=())])]
        assert drivers["macvlan"].converge(pairs) == (endpoint.endpoint_id,)
        assert drivers["macvlan"].observe().networks == {f"dm-{kept.id}"}
        drivers["macvlan"].converge([])


def test_overlay_connects_containers_of_two_hosts(world: World) -> None:
    """The neighbour plays the second host, with an engine of its own."""
    with contextlib.ExitStack() as stack:
        here = stack.enter_context(contextlib.closing(Drivers("other")))
        with netns.entered(world.outside):
            there = stack.enter_context(contextlib.closing(Drivers("other")))
        options = {"vxlan_id": "4097", "peers": OUTSIDE4}
        net = spec_of("overlay", "10.8.0.0/16", **options)
        net_there = spec_of("overlay", "10.8.0.0/16", **(options | {"peers": HOST4}))
        one, two = world.namespace(), world.namespace()
        for _ in range(2):
            here["overlay"].ensure(net)
        here["overlay"].attach(net, make_endpoint(net, 2), one)
        with netns.entered(world.outside):
            there["overlay"].ensure(net_there)
            there["overlay"].attach(net_there, make_endpoint(net_there, 1002), two)
        world.serve(two, 80, "two")
        assert world.ask(one, "10.8.3.234", 80) == "two 10.8.0.2"
        with netns.entered(one), NetlinkSocket() as sock:
            link = rtdump.link(sock, "eth0")
            assert link is not None
            assert link.mtu == 1450
        # what one driver repairs leaves the other's alone
        here["bridge"].converge([])
        assert here["overlay"].converge([(net, [make_endpoint(net, 2)])]) == ()
        assert world.ask(one, "10.8.3.234", 80) == "two 10.8.0.2"
        # a peer that is gone gets nothing any more
        moved = spec_of("overlay", "10.8.0.0/16", **(options | {"peers": "203.0.113.77"}))
        here["overlay"].ensure(moved)
        with NetlinkSocket() as sock:
            tunnel = rtdump.link(sock, "vx-" + net.id[:12])
            assert tunnel is not None
            assert rtdump.flood_peers(sock, tunnel.index) == [ip_address("203.0.113.77")]
        here["overlay"].remove(net)
        assert not here["overlay"].observe().networks


def test_drivers_that_make_nothing(world: World) -> None:
    with contextlib.closing(Drivers("other")) as drivers:
        fd = world.namespace()
        none = NetworkSpec(id="a1", name="none", driver="none")
        drivers["none"].attach(none, make_endpoint(none, 1), fd)
        with netns.entered(fd), NetlinkSocket() as sock:
            assert [a.interface for a in rtdump.addresses(sock)] == [
                ip_interface("127.0.0.1/8"),
                ip_interface("::1/128"),
            ]
        missing = NetworkSpec(id="a2", name="x", driver="ns", path="/run/netns/none-such")
        with pytest.raises(InvalidParameter, match="No such file"):
            drivers["ns"].ensure(missing)
        drivers["ns"].ensure(NetworkSpec(id="a3", name="x", driver="ns", path="/proc/self/ns/net"))
        with pytest.raises(NotFound, match='plugin "weave" not found'):
            drivers.find("weave")
        before = len(os.listdir("/proc/self/fd"))
    assert len(os.listdir("/proc/self/fd")) < before
