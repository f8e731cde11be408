"""Beside the host's own rules: its drops hold, only its default is overcome, or not even that."""

from __future__ import annotations

import contextlib

from sampan.kernel.nftables import Nftables
from sampan.network.bridge import BridgeDriver
from sampan.network.model import HostPolicy, PortBinding

from .conftest import HOST4, OUTSIDE4, World, make_network

# What dockerd and ufw leave on a host, in the shape iptables-nft gives it.
DROPPING = """
table ip filter {
  chain DOCKER-USER {
    tcp dport 81 counter drop
  }
  chain FORWARD {
    type filter hook forward priority filter; policy drop;
    counter jump DOCKER-USER
  }
}
"""


def test_a_host_that_forwards_nothing_by_default(world: World) -> None:
    with contextlib.closing(Nftables()) as nftables:
        nftables.run(DROPPING)
        before = nftables.run("list table ip filter")
        net, other = make_network(17), make_network(18)
        world.driver.ensure(net)
        world.driver.ensure(other)
        one, _, _ = world.start(net, 2, ports=(PortBinding(container_port=80, host_port=8080),))
        two, _, _ = world.start(other, 2)
        for fd, port in ((one, 80), (two, 80), (world.outside, 80), (world.outside, 81)):
            world.serve(fd, port, "there")
        assert world.ask(one, OUTSIDE4, 80)
        assert world.ask(world.outside, HOST4, 8080)
        # the host's own drop, and our isolation
        assert world.unreachable(one, OUTSIDE4, 81)
        assert world.unreachable(one, "172.18.0.2", 80)
        # rules set after our start are overcome at the next occasion
        nftables.run("delete table ip filter")
        nftables.run(DROPPING)
        assert world.unreachable(one, OUTSIDE4, 80)
        world.driver.ensure(net)
        assert world.ask(one, OUTSIDE4, 80)
        world.driver.remove(net)
        world.driver.remove(other)
        after = nftables.run("list table ip filter")
        assert "sampan" not in after
        assert [line.split("packets")[0] for line in after.splitlines()] == [
            line.split("packets")[0] for line in before.splitlines()
        ]


def test_respecting_the_host(world: World) -> None:
    with contextlib.closing(Nftables()) as nftables:
        nftables.run(DROPPING)
        with contextlib.closing(BridgeDriver("other", HostPolicy(respect=True))) as driver:
            world.driver.close()
            world.driver = driver
            net = make_network(17)
            driver.ensure(net)
            one, _, _ = world.start(net, 2)
            world.serve(world.outside, 80, "there")
            assert world.unreachable(one, OUTSIDE4, 80)
            nftables.run(f'add rule ip filter FORWARD oifname "{net.bridge}" accept')
            nftables.run(f'add rule ip filter FORWARD iifname "{net.bridge}" accept')
            assert world.ask(one, OUTSIDE4, 80)
