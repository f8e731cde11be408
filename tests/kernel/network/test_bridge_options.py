"""Options of bridge networks and endpoints by real packets: relays, limits, gateways, no rules."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from sampan.errors import Conflict, InvalidParameter, Unsupported
from sampan.kernel import netns
from sampan.kernel.nftables import Nftables
from sampan.network import ipam
from sampan.network.bridge import BridgeDriver, host_interface
from sampan.network.model import HostPolicy, PortBinding, RateLimit
from sampan.network.priority import Connection, with_gateways

from .conftest import HOST4, HOST6, OUTSIDE4, OUTSIDE6, World, make_endpoint, make_network


def test_ipv6_publication_of_a_container_without_ipv6_is_relayed(world: World) -> None:
    net = make_network(17, subnets=(ipam.make_subnet(ipam.parse_network("172.17.0.0/16")),))
    world.driver.ensure(net)
    port = PortBinding(container_port=80, host_address=ip_address("::"), host_port=8080)
    one, endpoint, status = world.start(net, 2, ports=(port,))
    world.serve(one, 80, "one", at="0.0.0.0")
    assert world.ask(world.outside, HOST6, 8080) == "one 172.17.0.1"
    assert world.ask(world.host, "::1", 8080) == "one 172.17.0.1"
    assert world.ask(world.host, "127.0.0.1", 8080) == ""  # IPv6 was asked for, and no more
    with pytest.raises(Conflict, match="already allocated by container c2"):
        world.start(net, 3, ports=(replace(port, host_address=None),))
    world.driver.close()
    world.driver = BridgeDriver("sampan")
    endpoint = replace(endpoint, ports=status.ports)
    assert world.driver.converge([(net, [endpoint])]) == ()
    assert world.ask(world.outside, HOST6, 8080) == "one 172.17.0.1"
    world.driver.detach(net, endpoint)
    assert world.ask(world.outside, HOST6, 8080) == ""
    with pytest.raises(InvalidParameter, match="no IPv6 address"):
        world.start(net, 4, ports=(replace(port, protocol="sctp"),))


def test_a_port_without_address_is_reached_by_ipv6_too(world: World) -> None:
    """A container without IPv6, as behind Docker's proxy; IPv4 is the rules' alone."""
    net = make_network(17, subnets=(ipam.make_subnet(ipam.parse_network("172.17.0.0/16")),))
    world.driver.ensure(net)
    ports = tuple(
        PortBinding(container_port=80, host_port=8080, protocol=protocol)
        for protocol in ("tcp", "udp")
    )
    one, endpoint, _ = world.start(net, 2, ports=ports)
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        world.serve(one, 80, "one", kind)
        assert world.ask(world.outside, HOST4, 8080, kind) == f"one {OUTSIDE4}"
        assert world.ask(world.outside, HOST6, 8080, kind) == "one 172.17.0.1"
        assert world.ask(world.host, "::1", 8080, kind) == "one 172.17.0.1"
    with contextlib.closing(Nftables()) as nftables:  # by another process they would come back
        nftables.run("flush ruleset")
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        assert world.unreachable(world.outside, HOST4, 8080, kind)
    world.driver.detach(net, endpoint, one)
    # routed: the container's own address is opened, and nothing passed on
    routed = replace(net, gateway_mode_ipv4="routed")
    world.driver.ensure(routed)
    world.start(routed, 3, ports=ports)
    assert not world.ask(world.outside, HOST6, 8080, patience=0.5)


def test_datagrams_are_relayed_to_each_client(world: World) -> None:
    net = make_network(17, subnets=(ipam.make_subnet(ipam.parse_network("172.17.0.0/16")),))
    world.driver.ensure(net)
    binding = PortBinding(
        container_port=53, host_address=ip_address("::"), host_port=5353, protocol="udp"
    )
    one, endpoint, _ = world.start(net, 2, ports=(binding,))
    world.serve(one, 53, "one", socket.SOCK_DGRAM, at="0.0.0.0")
    with contextlib.ExitStack() as stack:
        clients = []
        for _ in range(5):
            sock = netns.open_socket(world.outside, socket.AF_INET6, socket.SOCK_DGRAM)
            clients.append(stack.enter_context(sock))
            sock.settimeout(10)
            sock.connect((HOST6, 5353))
        for _ in range(2):
            for client in clients:
                client.send(b"?")
            assert [client.recv(100) for client in clients] == [b"one 172.17.0.1"] * 5
        # nobody there for a moment: datagrams are lost, and the next are passed on
        late, _, _ = world.start(net, 3, ports=(replace(binding, host_port=5454),))
        clients[0].connect((HOST6, 5454))
        clients[0].settimeout(0.2)
        for _ in range(2):
            clients[0].send(b"?")
            with pytest.raises(TimeoutError):
                clients[0].recv(100)
        world.serve(late, 53, "late", socket.SOCK_DGRAM, at="0.0.0.0")
        clients[0].settimeout(10)
        clients[0].send(b"?")
        assert clients[0].recv(100) == b"late 172.17.0.1"
    world.driver.detach(net, endpoint)
    with netns.open_socket(world.host, socket.AF_INET6, socket.SOCK_DGRAM) as free:
        free.bind(("::", 5353))


def test_loopback_relay_serves_loopback_alone(world: World) -> None:
    """What is not translated because the rules are gone is not passed on from elsewhere."""
    world.filter_bridged(True)
    net = make_network(17)
    world.driver.ensure(net)
    ports = tuple(
        PortBinding(container_port=80, host_port=8080, protocol=protocol)
        for protocol in ("tcp", "udp")
    )
    one, _, _ = world.start(net, 2, ports=ports)
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        world.serve(one, 80, "one", kind)
        assert world.ask(world.host, "::1", 8080, kind) == "one fd00:17::1"
        assert world.ask(world.outside, HOST6, 8080, kind) == f"one {OUTSIDE6}"
    with contextlib.closing(Nftables()) as nftables:  # by another process they would come back
        nftables.run("flush ruleset")
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        assert world.unreachable(world.outside, HOST6, 8080, kind)


@pytest.mark.parametrize("bridged_filtered", [False, True])
def test_own_port_of_a_container_without_ipv6(world: World, bridged_filtered: bool) -> None:
    world.filter_bridged(bridged_filtered)
    net = make_network(17, subnets=(ipam.make_subnet(ipam.parse_network("172.17.0.0/16")),))
    world.driver.ensure(net)
    one, _, _ = world.start(net, 2, ports=(PortBinding(container_port=80, host_port=8080),))
    world.serve(one, 80, "one")
    for address in ("172.17.0.1", HOST4):
        assert world.ask(one, address, 8080) == "one 172.17.0.1"


def test_limits_hold_back_what_is_over_them(world: World) -> None:
    net = make_network(17)
    world.driver.ensure(net)
    limits = RateLimit(egress=100_000, ingress=200_000)
    one, endpoint, _ = world.start(net, 2, limits=limits)
    host_end = host_interface(endpoint.endpoint_id)
    flood(one, OUTSIDE4)
    flood(world.host, "172.17.0.2")
    for fd, name, rate in ((one, "eth0", 100_000), (world.host, host_end, 200_000)):
        queue = queue_of(fd, name)
        assert (queue["kind"], queue["options"]["rate"]) == ("tbf", rate)
        # 64 KiB at once and a tenth of a second of the rate may pass or wait
        assert queue["bytes"] + queue["backlog"] < 65536 + rate + 20_000
        assert queue["drops"] > 100


def test_interfaces_are_made_with_the_one_queue_they_use(world: World) -> None:
    """Others would be taken out of use again, which waits for RCU grace periods."""
    net = make_network(17)
    world.driver.ensure(net)
    one, endpoint, _ = world.start(net, 2)
    for fd, name in ((one, "eth0"), (world.host, host_interface(endpoint.endpoint_id))):
        with netns.entered(fd):
            shown = subprocess.run(
                ["ip", "-json", "-details", "link", "show", name], capture_output=True, check=True
            )
        (link,) = json.loads(shown.stdout)
        assert (link["num_tx_queues"], link["num_rx_queues"]) == (1, 1)


def flood(netns_fd: int, address: str) -> None:
    """Send 560 kB at once."""
    with netns.open_socket(netns_fd, socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        for _ in range(400):
            with contextlib.suppress(OSError):  # ENOBUFS: dropped
                sock.sendto(bytes(1400), (address, 9))


def queue_of(netns_fd: int, name: str) -> dict[str, Any]:
    """The root queue of an interface with its counters (tc-tbf(8))."""
    done = subprocess.run(
        ["nsenter", f"--net=/proc/self/fd/{netns_fd}", *f"tc -s -j qdisc show dev {name}".split()],
        pass_fds=[netns_fd],
        capture_output=True,
        check=True,
    )
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found[0]


def test_gateway_that_is_not_the_bridge(world: World) -> None:
    # Else the router's packets pass the translation twice, bridged first.
    world.filter_bridged(on=False)
    net = make_network(17)
    world.driver.ensure(net)
    router, _, _ = world.start(net, 9)
    subnet = replace(net.subnets[0], auxiliary={"DefaultGatewayIPv4": ip_address("172.17.0.9")})
    net = replace(net, subnets=(subnet, *net.subnets[1:]))
    [endpoint] = with_gateways([Connection(network=net, endpoint=make_endpoint(net, 2))])
    assert endpoint.gateways[0] == ip_address("172.17.0.9")
    one = world.namespace()
    world.driver.attach(net, endpoint, one)
    with netns.entered(router):
        netns.write_sysctls({"net.ipv4.ip_forward": "1"})
    world.serve(world.outside, 80, "there")
    assert world.ask(one, OUTSIDE4, 80).startswith("there")


def test_a_host_without_our_rules(world: World) -> None:
    world.driver.close()
    with contextlib.closing(
        BridgeDriver("bare", HostPolicy(rules=False, forwarding=False))
    ) as driver:
        world.driver = driver
        net = make_network(17)
        driver.ensure(net)
        one, _, _ = world.start(net, 2)
        two, _, _ = world.start(net, 3)
        world.serve(two, 80, "two")
        assert world.ask(one, "172.17.0.3", 80) == "two 172.17.0.2"
        assert netns.read_sysctl("net.ipv4.ip_forward") == "0"
        with pytest.raises(Unsupported, match="iptables=false"):
            world.start(net, 4, ports=(PortBinding(container_port=80, host_port=8080),))
        tables = subprocess.run(["nft", "list", "tables"], capture_output=True, check=True).stdout
        assert b"bare" not in tables
        driver.remove(net)


def test_an_mtu_below_that_of_ipv6(world: World) -> None:
    small = make_network(17, mtu=1000, subnets=make_network(17).subnets[:1])
    world.driver.ensure(small)
    one, _, _ = world.start(small, 2, ports=(PortBinding(container_port=80, host_port=8080),))
    two, _, _ = world.start(small, 3)
    world.serve(one, 80, "one")
    assert world.ask(world.outside, HOST4, 8080) == f"one {OUTSIDE4}"
    assert world.ask(two, "172.17.0.2", 80) == "one 172.17.0.3"
    with pytest.raises(Unsupported, match="an MTU of 1000 is too small for IPv6"):
        world.driver.ensure(make_network(18, mtu=1000))
    assert world.driver.observe().networks == {small.bridge}


def test_throughput_is_that_of_the_limit(world: World) -> None:
    """By iperf3: neither more, nor much less; the other way is not limited by it."""
    if shutil.which("iperf3") is None:
        pytest.skip("iperf3 is not installed")
    net = make_network(17)
    world.driver.ensure(net)
    rate = 20 * 10**6
    one, _, _ = world.start(net, 2, limits=RateLimit(egress=rate // 8))
    two, _, _ = world.start(net, 3, limits=RateLimit(ingress=rate // 8))
    for fd in (one, two):
        sent, received = throughput(world, fd, f"172.17.0.{2 if fd == one else 3}")
        limited, other = (sent, received) if fd == one else (received, sent)
        assert 0.7 * rate < limited < 1.15 * rate
        assert other > 2 * rate


def throughput(world: World, netns_fd: int, address: str) -> tuple[float, float]:
    """Bits a second by TCP from a container to its neighbours and back, once the first bucket
    is used up."""
    server = ["iperf3", "-s", "-1", "--forceflush", "-B", address]
    client = ["iperf3", "-J", "-t", "2", "-O", "1", "-c", address]
    found = []
    for reverse in (True, False):  # the server is in the container, and sends when reversed
        with subprocess.Popen(
            ["nsenter", f"--net=/proc/self/fd/{netns_fd}", *server],
            pass_fds=[netns_fd],
            stdout=subprocess.PIPE,
        ) as listening:
            assert listening.stdout is not None
            while b"listening" not in listening.stdout.readline():
                pass
            done = subprocess.run(
                [*client, *(["-R"] if reverse else [])],
                capture_output=True,
                check=True,
                timeout=60,
            )
            listening.stdout.read()
        found.append(json.loads(done.stdout)["end"]["sum_received"]["bits_per_second"])
    return found[0], found[1]
