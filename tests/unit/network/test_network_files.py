"""hosts, resolv.conf and hostname as dockerd writes them."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from sampan.errors import InvalidParameter
from sampan.network.files import (
    ResolvConf,
    container_dns,
    hostname,
    hosts,
    parse_extra_host,
    parse_resolv_conf,
)

HOST = parse_resolv_conf(
    """# written by somebody
domain ignored.example
nameserver 127.0.0.53
nameserver 192.0.2.1  # with a comment
nameserver 2001:db8::53
nameserver fe80::1%eth0
nameserver not-an-address
options edns0 trust-ad ; another comment
search a.example b.example
"""
)


def test_resolv_conf_is_read_as_resolv_conf_5_says() -> None:
    assert (
        ResolvConf(
            nameservers=("127.0.0.53", "192.0.2.1", "2001:db8::53", "fe80::1%eth0"),
            search=("a.example", "b.example"),
            options=("edns0", "trust-ad"),
        )
        == HOST
    )
    assert parse_resolv_conf(HOST.render()) == HOST


def test_default_bridge_gets_the_hosts_servers_it_can_reach() -> None:
    dns = container_dns(HOST, embedded=False)
    assert dns.file.nameservers == ("192.0.2.1",)
    assert dns.file.search == HOST.search
    assert not dns.upstream
    with_ipv6 = container_dns(HOST, embedded=False, ipv6=True)
    assert with_ipv6.file.nameservers == ("192.0.2.1", "2001:db8::53", "fe80::1%eth0")


def test_nothing_reachable_means_public_servers() -> None:
    stub = parse_resolv_conf("nameserver 127.0.0.53\n")
    assert container_dns(stub, embedded=False).file.nameservers == ("8.8.8.8", "8.8.4.4")
    assert len(container_dns(stub, embedded=False, ipv6=True).file.nameservers) == 4


def test_user_networks_ask_the_embedded_resolver() -> None:
    dns = container_dns(HOST, embedded=True)
    assert dns.file.render() == (
        "nameserver 127.0.0.11\nsearch a.example b.example\noptions edns0 trust-ad ndots:0\n"
    )
    assert dns.upstream == HOST.nameservers
    assert dns.from_host
    own = container_dns(HOST, embedded=True, servers=["192.0.2.9"], options=["ndots:3"])
    assert own.file.options == ("ndots:3",)
    assert own.upstream == ("192.0.2.9",)
    assert not own.from_host


def test_flags_override_the_hosts_file() -> None:
    dns = container_dns(
        HOST, embedded=False, servers=["127.0.0.1", "192.0.2.7"], search=["."], options=["rotate"]
    )
    assert dns.file.render() == ("nameserver 127.0.0.1\nnameserver 192.0.2.7\noptions rotate\n")
    with pytest.raises(InvalidParameter, match=r"--dns dns\.example"):
        container_dns(HOST, embedded=False, servers=["dns.example"])


def test_host_network_sees_everything() -> None:
    assert container_dns(HOST, embedded=False, host_network=True).file == HOST


def test_hosts_and_hostname() -> None:
    extra = [
        *parse_extra_host("db:192.0.2.5"),
        *parse_extra_host("six=[2001:db8::5]"),
        *parse_extra_host("up:host-gateway", [ip_address("172.17.0.1")]),
    ]
    assert hosts("box", addresses=[ip_address("172.17.0.2")], extra=extra, ipv6=False) == (
        "127.0.0.1\tlocalhost\n192.0.2.5\tdb\n2001:db8::5\tsix\n172.17.0.1\tup\n172.17.0.2\tbox\n"
    )
    assert hosts("box", domainname="example", addresses=[ip_address("172.17.0.2")]).endswith(
        "ff02::2\tip6-allrouters\n172.17.0.2\tbox.example box\n"
    )
    assert hosts("a.b.c", addresses=[ip_address("10.0.0.1")]).endswith("10.0.0.1\ta.b.c a\n")
    assert hostname("box") == "box\n"


@pytest.mark.parametrize(
    "text", ["db", ":1.2.3.4", "db:nope", "a b:1.2.3.4", "db:", "x:host-gateway"]
)
def test_bad_extra_hosts(text: str) -> None:
    with pytest.raises(InvalidParameter):
        parse_extra_host(text)
