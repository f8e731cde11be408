"""Bridge networks by real packets: reachability, translation, isolation, published ports."""

from __future__ import annotations

import os
import socket
import subprocess
from dataclasses import replace
from ipaddress import ip_address

import pytest

from sampan.errors import Conflict, InvalidParameter
from sampan.kernel import netns, rtdump, rtnetlink
from sampan.kernel.netlink import NetlinkSocket
from sampan.network import interface
from sampan.network.bridge import host_interface
from sampan.network.model import PortBinding, RateLimit

from .conftest import (
    HOST4,
    HOST6,
    OUTSIDE4,
    OUTSIDE6,
    World,
    add_route,
    make_endpoint,
    make_network,
)

UDP = socket.SOCK_DGRAM


def test_container_reaches_outside_behind_the_hosts_address(world: World) -> None:
    net = make_network(17)
    world.driver.ensure(net)
    one, _, status = world.start(net, 2)
    assert status.mac == "02:42:ac:11:00:02"
    world.serve(world.outside, 80, "outside")
    assert world.ask(one, OUTSIDE4, 80) == f"outside {HOST4}"
    assert world.ask(one, OUTSIDE6, 80) == f"outside {HOST6}"


def test_containers_of_one_network_reach_each_other_and_the_host(world: World) -> None:
    net = make_network(17)
    world.driver.ensure(net)
    one, _, _ = world.start(net, 2)
    two, _, _ = world.start(net, 3)
    world.serve(two, 80, "two")
    world.serve(world.host, 81, "host")
    assert world.ask(one, "172.17.0.3", 80) == "two 172.17.0.2"
    assert world.ask(one, "fd00:17::3", 80) == "two fd00:17::2"
    assert world.ask(one, "172.17.0.1", 81) == "host 172.17.0.2"
    assert world.ask(world.host, "172.17.0.3", 80) == "two 172.17.0.1"


def test_networks_are_isolated_from_each_other(world: World) -> None:
    first, second = make_network(17), make_network(18)
    world.driver.ensure(first)
    world.driver.ensure(second)
    one, _, _ = world.start(first, 2)
    two, _, _ = world.start(second, 2)
    world.serve(two, 80, "two")
    assert world.ask(world.host, "172.18.0.2", 80) == "two 172.18.0.1"
    assert world.unreachable(one, "172.18.0.2", 80)
    assert world.unreachable(one, "fd00:18::2", 80)


def test_unpublished_ports_are_closed_to_neighbours_that_route_through_the_host(
    world: World,
) -> None:
    net = make_network(17)
    world.driver.ensure(net)
    one, _, _ = world.start(net, 2, ports=(PortBinding(container_port=80, host_port=8080),))
    world.serve(one, 80, "one")
    world.serve(one, 81, "one")
    add_route(world.outside, "172.17.0.0/16", HOST4)
    assert world.ask(world.outside, HOST4, 8080) == f"one {OUTSIDE4}"
    assert world.unreachable(world.outside, "172.17.0.2", 81)
    assert world.unreachable(world.outside, "172.17.0.2", 80)


@pytest.mark.parametrize("bridged_filtered", [False, True])
def test_published_port_from_everywhere(world: World, bridged_filtered: bool) -> None:
    world.filter_bridged(bridged_filtered)
    first, second = make_network(17), make_network(18)
    world.driver.ensure(first)
    world.driver.ensure(second)
    one, _, status = world.start(
        first,
        2,
        ports=(
            PortBinding(container_port=80, host_port=8080),
            PortBinding(container_port=53, host_port=5353, protocol="udp"),
        ),
    )
    assert [p.host_port for p in status.ports] == [8080, 5353]
    sibling, _, _ = world.start(first, 3)
    stranger, _, _ = world.start(second, 2)
    world.serve(one, 80, "one")
    world.serve(one, 53, "one", UDP)
    # the source address of a neighbour is kept, in both families
    assert world.ask(world.outside, HOST4, 8080) == f"one {OUTSIDE4}"
    assert world.ask(world.outside, HOST6, 8080) == f"one {OUTSIDE6}"
    assert world.ask(world.outside, HOST4, 5353, UDP) == f"one {OUTSIDE4}"
    # the host itself, by its address and by loopback
    assert world.ask(world.host, HOST4, 8080) == f"one {HOST4}"
    assert world.ask(world.host, "127.0.0.1", 8080) == "one 172.17.0.1"
    assert world.ask(world.host, "127.0.0.1", 5353, UDP) == "one 172.17.0.1"
    # (translated by the kernel, or passed on where it cannot)
    assert world.ask(world.host, "::1", 8080) == "one fd00:17::1"
    assert world.ask(world.host, "::1", 5353, UDP) == "one fd00:17::1"
    # hairpin: itself and its sibling, through the host's and the gateway's address
    assert world.ask(one, HOST4, 8080) == "one 172.17.0.1"
    assert world.ask(sibling, "172.17.0.1", 8080) == "one 172.17.0.1"
    assert world.ask(sibling, HOST6, 8080) == "one fd00:17::1"
    assert world.ask(one, HOST6, 8080) == "one fd00:17::1"
    # a container of another network, which isolation keeps from the container's own address
    assert world.ask(stranger, HOST4, 8080).startswith("one ")
    assert world.unreachable(stranger, "172.17.0.2", 80)


def test_port_published_on_loopback_stays_there(world: World) -> None:
    net = make_network(17)
    world.driver.ensure(net)
    binding = PortBinding(container_port=80, host_port=8080, host_address=ip_address("127.0.0.1"))
    one, _, _ = world.start(net, 2, ports=(binding,))
    two, _, _ = world.start(net, 3)
    world.serve(one, 80, "one")
    world.serve(world.host, 9000, "secret", at="127.0.0.1")
    assert world.ask(world.host, "127.0.0.1", 8080) == "one 172.17.0.1"
    assert world.unreachable(world.outside, HOST4, 8080)
    # a neighbour or container that sends packets for 127.0.0.1 to the host
    for attacker, gateway in ((world.outside, HOST4), (two, "172.17.0.1")):
        with netns.entered(attacker), NetlinkSocket():
            netns.write_sysctls({"net.ipv4.conf.all.route_localnet": "1"})
            os.system("ip addr del 127.0.0.1/8 dev lo 2>/dev/null")
        add_route(attacker, "127.0.0.0/8", gateway)
        assert world.unreachable(attacker, "127.0.0.1", 8080)
        assert world.unreachable(attacker, "127.0.0.1", 9000)


def test_address_specific_publication_wins_over_the_wildcard(world: World) -> None:
    net = make_network(17)
    world.driver.ensure(net)
    one, _, _ = world.start(
        net,
        2,
        ports=(PortBinding(container_port=80, host_port=80, host_address=ip_address(HOST4)),),
    )
    two, _, _ = world.start(
        net,
        3,
        ports=(PortBinding(container_port=80, host_port=80, host_address=ip_address("127.0.0.1")),),
    )
    world.serve(one, 80, "one")
    world.serve(two, 80, "two")
    assert world.ask(world.outside, HOST4, 80).startswith("one ")
    assert world.ask(world.host, "127.0.0.1", 80).startswith("two ")


def test_port_conflicts_name_the_holder_and_leave_nothing(world: World) -> None:
    net = make_network(17)
    world.driver.ensure(net)
    binding = PortBinding(container_port=80, host_port=8080)
    _, first, _ = world.start(net, 2, ports=(binding,))
    before = world.driver.observe()
    fd = world.namespace()
    with pytest.raises(Conflict, match=r"Bind for 0.0.0.0:8080 failed: port is already allocated"):
        world.driver.attach(net, make_endpoint(net, 3, ports=(binding,)), fd)
    world.serve(world.host, 7000, "host")
    with pytest.raises(Conflict, match=r"failed to bind host port 0.0.0.0:7000/tcp: address alre"):
        world.driver.attach(
            net, make_endpoint(net, 3, ports=(replace(binding, host_port=7000),)), fd
        )
    elsewhere = replace(binding, host_address=ip_address("198.51.100.9"), host_port=1)
    with pytest.raises(InvalidParameter, match="cannot assign requested address"):
        world.driver.attach(net, make_endpoint(net, 3, ports=(elsewhere,)), fd)
    world.driver.flush()
    assert world.driver.observe() == before
    # held against programs of the host as well, until given back
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match="in use"):
            sock.bind(("0.0.0.0", 8080))
    world.driver.detach(net, first)
    with socket.socket() as sock:
        sock.bind(("0.0.0.0", 8080))


def test_internal_network_reaches_nobody(world: World) -> None:
    net = make_network(17, internal=True)
    other = make_network(18)
    world.driver.ensure(net)
    world.driver.ensure(other)
    one, _, status = world.start(net, 2, ports=(PortBinding(container_port=80, host_port=8080),))
    two, _, _ = world.start(net, 3)
    open_one, _, _ = world.start(other, 2, ports=(PortBinding(container_port=80, host_port=9090),))
    assert status.ports == ()
    world.serve(two, 80, "two")
    world.serve(world.outside, 80, "outside")
    world.serve(open_one, 80, "open")
    assert world.ask(one, "172.17.0.3", 80) == "two 172.17.0.2"
    add_route(one, "0.0.0.0/0", "172.17.0.1")
    assert world.unreachable(one, OUTSIDE4, 80)
    assert world.unreachable(one, HOST4, 9090)
    add_route(world.outside, "172.17.0.0/16", HOST4)
    assert world.unreachable(world.outside, "172.17.0.3", 80)


@pytest.mark.parametrize("bridged_filtered", [False, True])
def test_without_icc_only_published_ports_connect_neighbours(
    world: World, bridged_filtered: bool
) -> None:
    world.filter_bridged(bridged_filtered)
    net = make_network(17, icc=False)
    world.driver.ensure(net)
    one, _, _ = world.start(net, 2)
    two, _, _ = world.start(net, 3, ports=(PortBinding(container_port=80, host_port=8080),))
    world.serve(two, 80, "two")
    world.serve(world.outside, 80, "outside")
    assert world.unreachable(one, "172.17.0.3", 80)
    add_route(one, "172.17.0.3/32", "172.17.0.1")
    assert world.unreachable(one, "172.17.0.3", 80)
    assert world.ask(one, HOST4, 8080) == "two 172.17.0.1"
    assert world.ask(one, OUTSIDE4, 80) == f"outside {HOST4}"


def test_routed_network_keeps_addresses_and_opens_only_published_ports(world: World) -> None:
    net = make_network(17, gateway_mode_ipv4="routed", gateway_mode_ipv6="routed")
    world.driver.ensure(net)
    one, _, status = world.start(net, 2, ports=(PortBinding(container_port=80, host_port=8080),))
    assert status.ports == (PortBinding(container_port=80),)
    world.serve(one, 80, "one")
    world.serve(one, 81, "one")
    world.serve(world.outside, 80, "outside")
    add_route(world.outside, "172.17.0.0/16", HOST4)
    add_route(world.outside, "fd00:17::/64", HOST6)
    assert world.ask(one, OUTSIDE4, 80) == "outside 172.17.0.2"
    assert world.ask(world.outside, "172.17.0.2", 80) == f"one {OUTSIDE4}"
    assert world.ask(world.outside, "fd00:17::2", 80) == f"one {OUTSIDE6}"
    assert world.unreachable(world.outside, "172.17.0.2", 81)


def test_detach_leaves_nothing_and_the_endpoint_can_come_again(world: World) -> None:
    net = make_network(17)
    world.driver.ensure(net)
    before = world.driver.observe()
    binding = PortBinding(container_port=80, host_port=8080)
    for _ in range(3):
        fd, endpoint, _ = world.start(net, 2, ports=(binding,))
        world.serve(fd, 80, "one")
        assert world.ask(world.host, "127.0.0.1", 8080) == "one 172.17.0.1"
        world.driver.detach(net, endpoint)
    world.driver.detach(net, endpoint, fd)
    assert world.driver.observe() == before
    assert world.unreachable(world.host, "127.0.0.1", 8080)
    world.driver.remove(net)
    world.driver.remove(net)
    assert not world.driver.observe().networks


def test_udp_client_that_keeps_sending_reaches_the_new_container(world: World) -> None:
    net = make_network(17)
    world.driver.ensure(net)
    binding = PortBinding(container_port=53, host_port=5353, protocol="udp")
    one, endpoint, _ = world.start(net, 2, ports=(binding,))
    world.serve(one, 53, "one", UDP)
    with netns.open_socket(world.outside, socket.AF_INET, UDP) as client:
        client.settimeout(2)
        client.connect((HOST4, 5353))
        client.send(b"?")
        assert client.recv(99) == f"one {OUTSIDE4}".encode()
        world.driver.detach(net, endpoint)
        two, _, _ = world.start(net, 3, ports=(binding,))
        world.serve(two, 53, "two", UDP)
        world.driver.flush()  # flows are forgotten in the background
        client.send(b"?")
        assert client.recv(99) == f"two {OUTSIDE4}".encode()


def test_converge_repairs_what_was_flushed_and_removes_what_is_not_wanted(world: World) -> None:
    net, gone = make_network(17), make_network(18)
    world.driver.ensure(net)
    world.driver.ensure(gone)
    binding = PortBinding(container_port=80, host_port=8080)
    one, endpoint, status = world.start(net, 2, ports=(binding,))
    _, stray, _ = world.start(gone, 2, ports=(replace(binding, host_port=8081),))
    world.serve(one, 80, "one")
    assert os.system("nft flush ruleset") == 0
    assert world.unreachable(world.outside, HOST4, 8080)
    lost = world.driver.converge(
        [
            (
                net,
                [replace(endpoint, ports=status.ports), make_endpoint(net, 9, ports=(binding,))],
            )
        ]
    )
    assert lost == (make_endpoint(net, 9).endpoint_id,)
    assert world.ask(world.outside, HOST4, 8080) == f"one {OUTSIDE4}"
    seen = world.driver.observe()
    assert seen.networks == {net.bridge}
    assert seen.endpoints == {host_interface(endpoint.endpoint_id)}
    assert host_interface(stray.endpoint_id) not in seen.endpoints


def test_rules_come_back_by_themselves_when_somebody_flushed_them(world: World) -> None:
    net = make_network(17)
    world.driver.ensure(net)
    binding = PortBinding(container_port=80, host_port=8080)
    one, _, _ = world.start(net, 2, ports=(binding,))
    world.serve(one, 80, "one")
    assert os.system("nft flush ruleset") == 0
    _, endpoint, _ = world.start(net, 3, ports=(replace(binding, host_port=8081),))
    assert world.ask(world.outside, HOST4, 8080) == f"one {OUTSIDE4}"
    assert os.system("nft flush ruleset") == 0
    world.driver.detach(net, endpoint)
    assert world.ask(world.outside, HOST4, 8080) == f"one {OUTSIDE4}"


def test_second_network_live_gateway_change_and_statistics(world: World) -> None:
    first, second = make_network(17), make_network(18, subnets=make_network(18).subnets[:1])
    world.driver.ensure(first)
    world.driver.ensure(second)
    fd, eth0, _ = world.start(first, 2)
    _, eth1, _ = world.start(
        second,
        2,
        netns_fd=fd,
        interface="eth1",
        gateways=(),
        mac="02:00:00:00:00:07",
        sysctls={"net.ipv4.conf.IFNAME.log_martians": "1"},
        limits=RateLimit(egress=10**8, ingress=10**8),
    )
    world.serve(world.outside, 80, "outside")
    with netns.entered(fd), NetlinkSocket() as sock:
        link = rtdump.link(sock, "eth1")
        assert link is not None
        assert link.mac == "02:00:00:00:00:07"
        assert netns.read_sysctl("net.ipv4.conf.eth1.log_martians") == "1"
        assert netns.read_sysctl("net.ipv6.conf.eth1.disable_ipv6") == "1"
        assert (
            next(r.index for r in rtdump.routes(sock) if r.destination.prefixlen == 0)
            == (rtdump.link(sock, "eth0") or link).index
        )
    with netns.entered(fd):
        limited = subprocess.check_output(["tc", "qdisc", "show", "dev", "eth1"], text=True)
    assert "tbf" in limited
    assert "rate 800Mbit" in limited
    eth0, eth1 = replace(eth0, gateways=()), replace(eth1, gateways=(ip_address("172.18.0.1"),))
    interface.set_gateways(fd, [eth0, eth1])
    assert world.ask(fd, OUTSIDE4, 80) == f"outside {HOST4}"
    world.driver.detach(first, eth0, fd)
    assert world.ask(fd, OUTSIDE4, 80) == f"outside {HOST4}"
    counters = interface.statistics(fd)
    assert set(counters) == {"eth1"}
    assert counters["eth1"].tx_packets > 4
    assert counters["eth1"].rx_bytes > 100


def test_network_that_cannot_be_made_leaves_nothing_and_costs_no_other(world: World) -> None:
    taken = make_network(18, bridge="uplink")
    with pytest.raises(Conflict, match="interface uplink exists and is not a bridge"):
        world.driver.ensure(taken)
    net = make_network(17)
    world.driver.ensure(net)
    one, endpoint, _ = world.start(net, 2)
    other = make_endpoint(taken, 2)
    assert world.driver.converge([(taken, [other]), (net, [endpoint])]) == (other.endpoint_id,)
    world.serve(world.outside, 80, "outside")
    assert world.ask(one, OUTSIDE4, 80)
    # the rules cannot be set: the bridge goes again
    before = world.driver.observe()
    third = make_network(19, gateway_mode_ipv4="routed", snat_ipv6=ip_address("::1"))
    broken = replace(third, trusted_interfaces=('x" ',))
    with pytest.raises(InvalidParameter):
        world.driver.ensure(broken)
    assert world.driver.observe() == before
    world.driver.ensure(third)


def test_bridge_somebody_else_made_is_used_and_kept(world: World) -> None:
    with NetlinkSocket() as sock:
        sock.request([rtnetlink.bridge_add("lan0")])
    net = make_network(17, bridge="lan0")
    world.driver.ensure(net)
    one, endpoint, _ = world.start(net, 2)
    world.serve(world.outside, 80, "outside")
    assert world.ask(one, OUTSIDE4, 80)
    world.driver.detach(net, endpoint)
    world.driver.remove(net)
    with NetlinkSocket() as sock:
        assert rtdump.link(sock, "lan0") is not None


def test_router_advertisements_of_containers_are_not_listened_to(world: World) -> None:
    for net in (make_network(17), make_network(18, subnets=make_network(18).subnets[:1])):
        world.driver.ensure(net)
        assert netns.read_sysctl(f"net.ipv6.conf.{net.bridge}.accept_ra") == "0"
    fd, _, _ = world.start(make_network(17), 2)
    with netns.entered(fd):
        assert netns.read_sysctl("net.ipv6.conf.eth0.accept_ra") == "0"
