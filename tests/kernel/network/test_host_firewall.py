"""Beside the host's own rules: its drops hold, only its default is overcome, or not even that."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator

import pytest

from sampan.kernel.nftables import Nftables
from sampan.network import hostinput
from sampan.network.bridge import BridgeDriver
from sampan.network.model import HostPolicy, PortBinding

from .conftest import (
    HOST4,
    HOST6,
    OUTSIDE4,
    OUTSIDE6,
    World,
    add_address,
    add_route,
    make_network,
)

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


# What firewalld's chains look like, and many written by hand: accepting by policy, rejecting last.
REJECTING = """
table inet guard {
  set banned { type ipv4_addr; flags interval; elements = { 198.51.100.0/24 } }
  map services { type inet_proto . inet_service : verdict; elements = { tcp . 8080 : accept } }
  chain inner {
    ip saddr 203.0.113.0/24 tcp dport 8082 accept
    iifname "elsewhere" tcp dport 8083 accept
    meta l4proto { icmp, ipv6-icmp } accept
    reject with icmpx admin-prohibited
  }
  chain zones {
    ip saddr @banned drop
    meta l4proto . th dport vmap @services
    iifname "uplink" goto inner
  }
  chain entry {
    type filter hook input priority filter + 10; policy accept;
    ct state established,related accept
    ct status dnat accept
    iifname "lo" accept
    ct state invalid drop
    icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
    jump zones
    meta skuid 0 accept
    log prefix "@odd " counter reject
  }
}
"""


def test_respecting_rules_that_reject_last(world: World) -> None:
    """By source, by interface, by sets, and by what the last rule says instead of the policy."""
    change(REJECTING)
    world.driver.close()
    world.driver = BridgeDriver("other", HostPolicy(respect=True))
    net = make_network(17)
    world.driver.ensure(net)
    ports = tuple(
        PortBinding(container_port=80, host_port=number) for number in (8080, 8081, 8082, 8083)
    )
    one, endpoint, _ = world.start(net, 2, ports=ports)
    world.serve(one, 80, "one")
    add_address(world.outside, "203.0.113.66/32", "198.51.100.2/32")
    add_route(world.host, "198.51.100.0/24", "203.0.113.2/24")

    def reached(version: int = 4) -> list[int]:
        host = HOST4 if version == 4 else HOST6
        return [
            n for n in (8080, 8081, 8082, 8083) if world.ask(world.outside, host, n, patience=1)
        ]

    assert reached() == [8080, 8082]
    assert reached(6) == [8080]
    assert world.ask(world.host, HOST4, 8081).startswith("one")
    assert not world.ask(world.outside, HOST4, 8080, patience=0.5, source="198.51.100.2")
    # what changes in a set, a rule, and a chain
    change("delete element inet guard services { tcp . 8080 : accept }")
    assert eventually(lambda: reached() == [8082])
    change("insert rule inet guard inner tcp dport 8083 accept")
    assert eventually(lambda: reached() == [8082, 8083])
    change("add element inet guard banned { 203.0.113.0/24 }")
    assert eventually(lambda: reached() == [])
    assert reached(6) == [8083]
    change("flush ruleset")
    assert eventually(lambda: reached() == reached(6) == [8080, 8081, 8082, 8083])
    change(REJECTING)
    assert eventually(lambda: reached() == [8080, 8082])
    # what is published no longer is guarded no longer
    world.driver.detach(net, endpoint, one)
    with contextlib.closing(Nftables()) as nftables:
        assert "tcp . 8081" not in nftables.run("list table inet other-input")
    world.serve(world.host, 8081, "host")
    change("insert rule inet guard entry tcp dport 8081 accept")
    assert world.ask(world.outside, HOST4, 8081) == f"host {OUTSIDE4}"
    world.driver.remove(net)
    # a daemon that does not respect the host any more
    world.driver.close()
    world.driver = BridgeDriver("other")
    world.driver.converge([])
    with contextlib.closing(Nftables()) as nftables:
        assert "other-input" not in nftables.run("list tables")


def test_rules_that_cannot_be_copied(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Close every port, and say so."""
    line = "iptables -A INPUT -p tcp -m length --length 40:100 -j ACCEPT"
    subprocess.run(line.split(), check=True, capture_output=True)
    monkeypatch.setattr(hostinput, "_KEPT", (*hostinput._KEPT, "xt"))
    world.driver.close()
    world.driver = BridgeDriver("other", HostPolicy(respect=True))
    net = make_network(17)
    world.driver.ensure(net)
    one, _, _ = world.start(net, 2, ports=(PortBinding(container_port=80, host_port=8080),))
    world.serve(one, 80, "one")
    assert world.unreachable(world.outside, HOST4, 8080)
    assert world.ask(world.host, HOST4, 8080)
    assert "published ports are closed" in caplog.text
    world.driver.remove(net)


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
        "-A uf -p tcp --dport 8084 -j REJECT",
        "-A uf -p tcp --dport 8084 -j ACCEPT",
        "-A FORWARD -p tcp --dport 81 -j REJECT",
    ):  # fmt: skip
        iptables(line)
    before = subprocess.run(["iptables-save"], check=True, capture_output=True, text=True).stdout
    net = make_network(17)
    # open, as Docker: what the host forwards nothing of by default, it forwards for us
    world.driver.ensure(net)
    ports = tuple(PortBinding(container_port=80, host_port=n) for n in (8080, 8081, 8083, 8084))
    one, endpoint, _ = world.start(net, 2, ports=ports)
    world.serve(one, 80, "one")
    assert all(world.ask(world.outside, HOST4, n) for n in (8080, 8081, 8083))
    world.driver.detach(net, endpoint, one)
    world.driver.remove(net)
    world.driver.close()
    with contextlib.closing(BridgeDriver("other", HostPolicy(respect=True))) as driver:
        world.driver = driver
        driver.ensure(net)
        two, _, _ = world.start(net, 3, ports=ports)
        world.serve(two, 80, "two")
        for number in (8080, 8081):
            assert world.ask(world.outside, HOST4, number) == f"two {OUTSIDE4}"
        for number in (8083, 8084):
            assert world.unreachable(world.outside, HOST4, number)
        # what is no published port is forwarded as the host says: not
        world.serve(world.outside, 80, "there")
        assert world.unreachable(two, OUTSIDE4, 80)
        driver.remove(net)
    after = subprocess.run(["iptables-save"], check=True, capture_output=True, text=True).stdout
    assert rules_of(after) == rules_of(before)


MATCHES = {
    "-p tcp -m multiport --dports 8080,8090:8092": [8080, 8091],
    "-p tcp -m conntrack --ctstate NEW -m multiport ! --dports 8081,8091": [8080, 8082],
    "-p tcp -m state --state ESTABLISHED -m multiport --dports 8080": [],
    "-p tcp -m conntrack ! --ctstate INVALID --ctproto tcp": [],  # more than is known
    "-p tcp --dport 8082 -m multiport --sports 1:65535": [8082],
    "-p tcp -m multiport --ports 8080": [],  # either side: not known
    "-p tcp --dport 8082 -m addrtype --dst-type LOCAL": [8082],
    "-m addrtype ! --dst-type LOCAL,BROADCAST": [],
    "-m addrtype ! --src-type LOCAL,UNICAST": [],
    "-m addrtype --src-type UNICAST --dst-type LOCAL": [],  # two at once: not known
}


def test_matches_of_iptables(world: World) -> None:
    """By packets: which published ports a rule with a match that nft does not tell lets in."""
    world.driver.close()
    world.driver = BridgeDriver("other", HostPolicy(respect=True))
    net = make_network(17)
    world.driver.ensure(net)
    numbers = (8080, 8081, 8082, 8091)
    ports = tuple(PortBinding(container_port=80, host_port=n) for n in numbers)
    one, _, _ = world.start(net, 2, ports=ports)
    world.serve(one, 80, "one")
    subprocess.run(["iptables", "-P", "INPUT", "DROP"], check=True, capture_output=True)
    for rule, wanted in MATCHES.items():
        subprocess.run(
            ["iptables", "-A", "INPUT", *rule.split(), "-j", "ACCEPT"],
            check=True,
            capture_output=True,
        )
        world.driver.converge([])
        world.driver.close()
        world.driver = BridgeDriver("other", HostPolicy(respect=True))
        world.driver.ensure(net)
        one, endpoint, _ = world.start(net, 2, ports=ports)
        world.serve(one, 80, "one")
        found = [n for n in numbers if world.ask(world.outside, HOST4, n, patience=0.3)]
        assert found == wanted, rule
        world.driver.detach(net, endpoint, one)
        subprocess.run(["iptables", "-F", "INPUT"], check=True, capture_output=True)
    world.driver.remove(net)


@pytest.fixture
def ufw() -> Iterator[Callable[..., None]]:
    """The real ufw(8) with settings of its own, in the network namespace of the test."""
    if shutil.which("ufw") is None:
        pytest.skip("needs ufw")
    with tempfile.TemporaryDirectory() as root:
        script = ["set -e"]
        for number, path in enumerate(("/etc/ufw", "/etc/default/ufw", "/lib/ufw")):
            subprocess.run(["cp", "-a", path, f"{root}/{number}"], check=True)
            script.append(f"mount --bind {root}/{number} {path}")
        script.append('exec ufw "$@"')

        def call(*arguments: str) -> None:
            subprocess.run(
                ["unshare", "--mount", "--propagation", "private", "sh", "-c",
                 "; ".join(script), "ufw", *arguments],
                check=True, capture_output=True,
            )  # fmt: skip

        yield call


def test_published_ports_obey_ufw(world: World, ufw: Callable[..., None]) -> None:
    world.driver.close()
    world.driver = BridgeDriver("other", HostPolicy(respect=True))
    net = make_network(17)
    world.driver.ensure(net)
    numbers = (8080, 8081, 8082)
    ports = tuple(PortBinding(container_port=80, host_port=n) for n in numbers)
    one, endpoint, _ = world.start(net, 2, ports=ports)
    world.serve(one, 80, "one")
    world.serve(world.outside, 80, "there")

    def reached(host: str = HOST4) -> list[int]:
        return [n for n in numbers if world.ask(world.outside, host, n, patience=1)]

    assert reached() == reached(HOST6) == [8080, 8081, 8082]
    ufw("--force", "enable")
    assert eventually(lambda: reached() == reached(HOST6) == [])
    ufw("allow", "8080,8082/tcp")  # several ports: a match of iptables
    assert eventually(lambda: reached() == reached(HOST6) == [8080, 8082])
    ufw("insert", "1", "deny", "8082/tcp")
    assert eventually(lambda: reached() == [8080])
    ufw("allow", "from", OUTSIDE4, "to", "any", "port", "8081", "proto", "tcp")
    assert eventually(lambda: reached() == [8080, 8081])
    assert reached(HOST6) == [8080]
    # what containers send out is routed, and ufw denies that until it is told otherwise
    assert world.unreachable(one, OUTSIDE4, 80)
    ufw("default", "allow", "routed")
    assert eventually(lambda: world.ask(one, OUTSIDE4, 80, patience=1))
    ufw("disable")
    assert eventually(lambda: reached() == reached(HOST6) == [8080, 8081, 8082])
    world.driver.detach(net, endpoint, one)
    world.driver.remove(net)


def rules_of(saved: str) -> list[str]:
    """Lines of iptables-save without counters and times."""
    return [line.partition(" [")[0] for line in saved.splitlines() if not line.startswith("#")]
