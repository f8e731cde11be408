"""Beside the host's own rules: its drops hold, only its default is overcome, or not even that."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable

from sampan.kernel.nftables import Nftables
from sampan.network.bridge import BridgeDriver
from sampan.network.model import HostPolicy, PortBinding

from .conftest import HOST4, HOST6, OUTSIDE4, OUTSIDE6, World, make_network

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


def change(script: str) -> None:
    """Change rules as another process does."""
    subprocess.run(["nft", "-f", "-"], input=script.encode(), check=True)


def eventually(check: Callable[[], object], seconds: float = 20) -> bool:
    """Whether something comes true within some seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if check():
            return True
        time.sleep(0.05)
    return False


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
        # rules that somebody else sets later are overcome as soon as we hear of them
        change(f"delete table ip filter\n{DROPPING}")
        assert eventually(lambda: world.ask(one, OUTSIDE4, 80, patience=1))
        assert world.unreachable(one, OUTSIDE4, 81)
        change(f"flush ruleset\n{DROPPING}")
        assert eventually(lambda: world.ask(world.outside, HOST4, 8080, patience=1))
        assert world.unreachable(one, "172.18.0.2", 80)
        world.driver.remove(net)
        world.driver.remove(other)
        after = nftables.run("list table ip filter")
        assert "sampan" not in after
        assert [line.split("packets")[0] for line in after.splitlines()] == [
            line.split("packets")[0] for line in before.splitlines()
        ]


def test_what_was_opened_is_closed_again(world: World) -> None:
    """By a daemon that respects the host, and where the host drops by default no longer."""
    with contextlib.closing(Nftables()) as nftables:
        nftables.run(DROPPING)
        net = make_network(17)
        world.driver.ensure(net)
        assert "sampan" in nftables.run("list table ip filter")
        change("chain ip filter FORWARD { policy accept; }")
        assert eventually(lambda: "sampan" not in nftables.run("list table ip filter"))
        change("chain ip filter FORWARD { policy drop; }")
        assert eventually(lambda: "sampan" in nftables.run("list table ip filter"))
        world.driver.close()
        world.driver = BridgeDriver("sampan", HostPolicy(respect=True))
        world.driver.converge([(net, [])])
        assert "sampan" not in nftables.run("list table ip filter")
        world.driver.remove(net)


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


# What ``ufw allow 8080/tcp`` and the like leave, by iptables and by nft.
GUARDED = """
table ip filter {
  chain user-input {
    tcp dport { 8080, 9000-9010 } counter accept
    udp dport 53 ip saddr 192.0.2.0/24 accept
  }
  chain not-local {
    fib daddr type { local, broadcast } return
    counter drop
  }
  chain INPUT {
    type filter hook input priority filter; policy drop;
    ct state established,related accept
    iifname "lo" accept
    counter jump not-local
    counter jump user-input
  }
}
"""


def test_respecting_the_hosts_input_rules(world: World) -> None:
    with contextlib.closing(Nftables()) as nftables:
        nftables.run(GUARDED)
        world.driver.close()
        with contextlib.closing(BridgeDriver("other", HostPolicy(respect=True))) as driver:
            world.driver = driver
            net = make_network(17)
            driver.ensure(net)
            ports = tuple(
                PortBinding(container_port=80, host_port=number) for number in (8080, 8081, 9005)
            )
            one, _, _ = world.start(net, 2, ports=ports)
            world.serve(one, 80, "one")
            for number in (8080, 9005):
                assert world.ask(world.outside, HOST4, number) == f"one {OUTSIDE4}"
            # not let in by the host, which itself reaches it all the same; IPv6 drops nothing
            assert world.unreachable(world.outside, HOST4, 8081)
            assert world.ask(world.host, HOST4, 8081).startswith("one")
            assert world.ask(world.host, "127.0.0.1", 8081).startswith("one")
            assert world.ask(world.outside, HOST6, 8081) == f"one {OUTSIDE6}"
            # the host changes its mind
            change("add rule ip filter user-input tcp dport 8081 accept")
            assert eventually(lambda: world.ask(world.outside, HOST4, 8081, patience=1))
            change(f"delete table ip filter\n{GUARDED}")
            assert eventually(lambda: not world.ask(world.outside, HOST4, 8081, patience=1))
            assert world.ask(world.outside, HOST4, 8080) == f"one {OUTSIDE4}"
            driver.remove(net)


def test_beside_iptables_rules(world: World) -> None:
    """Rules by iptables(8), opaque matches and all: read where they can be, kept as they are."""

    def iptables(line: str) -> None:
        subprocess.run(["iptables", *line.split()], check=True, capture_output=True)

    for line in (
        "-P INPUT DROP", "-P FORWARD DROP", "-N uf",
        "-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "-A INPUT -i lo -j ACCEPT", "-A INPUT -j uf",
        "-A uf -p tcp --dport 8080 -j ACCEPT",
        "-A uf -p tcp -m multiport --dports 8081,8082 -j ACCEPT",
        "-A FORWARD -p tcp --dport 81 -j REJECT",
    ):  # fmt: skip
        iptables(line)
    before = subprocess.run(["iptables-save"], check=True, capture_output=True, text=True).stdout
    net = make_network(17)
    # open, as Docker: what the host forwards nothing of by default, it forwards for us
    world.driver.ensure(net)
    ports = tuple(PortBinding(container_port=80, host_port=n) for n in (8080, 8081, 8083))
    one, endpoint, _ = world.start(net, 2, ports=ports)
    world.serve(one, 80, "one")
    assert all(world.ask(world.outside, HOST4, n) for n in (8080, 8081, 8083))
    world.driver.detach(net, endpoint, one)
    world.driver.remove(net)
    world.driver.close()
    with contextlib.closing(BridgeDriver("other", HostPolicy(respect=True))) as driver:
        world.driver = driver
        driver.ensure(net)
        iptables(f"-A FORWARD -o {net.bridge} -j ACCEPT")
        iptables(f"-A FORWARD -i {net.bridge} -j ACCEPT")
        two, _, _ = world.start(net, 3, ports=ports)
        world.serve(two, 80, "two")
        assert world.ask(world.outside, HOST4, 8080) == f"two {OUTSIDE4}"
        for number in (8081, 8083):  # a match nft cannot show counts as none
            assert world.unreachable(world.outside, HOST4, number)
        driver.remove(net)
    for way in ("o", "i"):
        iptables(f"-D FORWARD -{way} {net.bridge} -j ACCEPT")
    after = subprocess.run(["iptables-save"], check=True, capture_output=True, text=True).stdout
    assert rules_of(after) == rules_of(before)


def rules_of(saved: str) -> list[str]:
    """Lines of iptables-save without counters and times."""
    return [line.partition(" [")[0] for line in saved.splitlines() if not line.startswith("#")]
