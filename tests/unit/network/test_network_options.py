"""From the API's words to network values and back."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_interface

import pytest

from sampan.errors import InvalidParameter, Unsupported
from sampan.network import ipam
from sampan.network.model import EndpointSpec, NetworkSpec, PortBinding, RateLimit
from sampan.network.options import network_spec
from sampan.network.priority import Connection, gateway_endpoint, with_gateways
from sampan.network.publish import default_address, port_bindings, port_map
from sampan.network.traffic import limits_of, parse_rate
from sampan.wire import container as wire

ID = "0123456789ab" + "c" * 52


def spec(driver: str = "bridge", internal: bool = False, **options: str) -> NetworkSpec:
    return network_spec(
        id=ID,
        name="net",
        driver=driver,
        internal=internal,
        options={key.replace("__", "."): value for key, value in options.items()},
    )


def test_bridge_options() -> None:
    assert spec().bridge == "br-0123456789ab"
    made = network_spec(
        id=ID,
        name="net",
        driver="bridge",
        options={
            "com.docker.network.bridge.name": "lan0",
            "com.docker.network.bridge.enable_icc": "false",
            "com.docker.network.bridge.enable_ip_masquerade": "0",
            "com.docker.network.bridge.host_binding_ipv4": "127.0.0.1",
            "com.docker.network.bridge.gateway_mode_ipv6": "routed",
            "com.docker.network.driver.mtu": "9000",
            "com.docker.network.host_ipv4": "192.0.2.1",
            "com.docker.network.container_iface_prefix": "lan",
            "com.docker.network.bridge.inhibit_ipv4": "true",
            "com.docker.network.bridge.trusted_host_interfaces": "eth0:wg0",
            "org.example.own": "kept",
        },
    )
    assert (made.bridge, made.icc, made.masquerade, made.mtu) == ("lan0", False, False, 9000)
    assert (made.inhibit_ipv4, made.trusted_interfaces) == (True, ("eth0", "wg0"))
    assert made.host_address == ip_address("127.0.0.1")
    assert made.snat_ipv4 == ip_address("192.0.2.1")
    assert (made.gateway_mode_ipv4, made.gateway_mode_ipv6) == ("nat", "routed")
    assert made.container_interface_prefix == "lan"
    assert made.options["org.example.own"] == "kept"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"com__docker__network__bridge__enable_icc": "maybe"}, InvalidParameter, "enable_icc"),
        ({"com__docker__network__bridge__name": "x" * 16}, InvalidParameter, "bridge.name"),
        ({"com__docker__network__driver__mtu": "big"}, InvalidParameter, "mtu"),
        ({"com__docker__network__bridge__gateway_mode_ipv4": "x"}, InvalidParameter, "gateway"),
        ({"com__docker__network__bridge__gateway_mode_ipv4": "isolated"}, InvalidParameter, "int"),
        ({"com__docker__network__bridge__new_thing": "1"}, Unsupported, "new_thing"),
    ],
)
def test_wrong_options_are_named(
    options: dict[str, str], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        spec(**options)


def test_other_drivers_options() -> None:
    assert spec("macvlan", parent="eth0.5").mode == "bridge"
    assert spec("ipvlan", parent="eth0", ipvlan_mode="l3s").mode == "l3s"
    overlay = spec("overlay", vxlan_id="42", peers="192.0.2.1, 192.0.2.2")
    assert overlay.vxlan_id == 42
    assert len(overlay.peers) == 2
    assert spec("ns", path="/run/netns/x").path == "/run/netns/x"
    for driver, options in (
        ("macvlan", {"macvlan_mode": "x"}),
        ("ipvlan", {"ipvlan_flag": "x"}),
        ("overlay", {}),
        ("overlay", {"vxlan_id": "16777216"}),
        ("ns", {}),
        ("ns", {"path": "relative"}),
    ):
        with pytest.raises(InvalidParameter):
            spec(driver, **options)


def test_ports_of_a_create_request() -> None:
    entry = wire.PortBinding
    assert port_bindings(
        {
            "80/tcp": [entry(host_ip="127.0.0.1", host_port="8080"), entry(host_port="")],
            "53/udp": None,
            "90": [entry(host_port="9000-9010")],
            "7/sctp": [entry(host_ip="::1", host_port="7-7")],
        },
        ["443/tcp", "80/tcp"],
        publish_all=True,
    ) == (
        PortBinding(container_port=80, host_port=8080, host_address=ip_address("127.0.0.1")),
        PortBinding(container_port=80),
        PortBinding(container_port=53, protocol="udp"),
        PortBinding(container_port=90, host_port=9000, host_port_end=9010),
        PortBinding(container_port=7, protocol="sctp", host_port=7, host_address=ip_address("::1")),
        PortBinding(container_port=443),
    )


@pytest.mark.parametrize(
    ("key", "address", "port"),
    [
        ("0/tcp", "", "1"),
        ("80/icmp", "", "1"),
        ("x", "", "1"),
        ("80", "nope", "1"),
        ("80", "", "70000"),
        ("80", "", "9-8"),
        ("80", "", "9-"),
    ],
)
def test_bad_ports(key: str, address: str, port: str) -> None:
    with pytest.raises(InvalidParameter):
        port_bindings({key: [wire.PortBinding(host_ip=address, host_port=port)]})


def test_ports_of_a_running_container() -> None:
    ports = (
        PortBinding(container_port=80, host_port=8080),
        PortBinding(
            container_port=53, host_port=53, protocol="udp", host_address=ip_address("::1")
        ),
    )
    shown = port_map(ports, ["80/tcp", "443/tcp"], ipv6=True)
    entry = wire.PortBinding
    assert shown == {
        "80/tcp": [
            entry(host_ip="0.0.0.0", host_port="8080"),
            entry(host_ip="::", host_port="8080"),
        ],
        "443/tcp": None,
        "53/udp": [entry(host_ip="::1", host_port="53")],
    }
    only6 = port_map(ports[:1], ipv4=False, ipv6=True, relayed=True)
    assert only6 == {"80/tcp": [entry(host_ip="::", host_port="8080")]}
    assert port_map(ports[:1], relayed=True)["80/tcp"] == shown["80/tcp"]
    sctp = (replace(ports[0], protocol="sctp"), replace(ports[0], host_port=0))
    for port in sctp:
        [[one]] = (entries or [] for entries in port_map([port], relayed=True).values())
        assert one.host_ip == "0.0.0.0"
    kept_home = default_address(ports, ip_address("127.0.0.1"))
    assert [str(p.host_address) for p in kept_home] == ["127.0.0.1", "::1"]


def connection(name: str, *subnets: str, priority: int = 0, internal: bool = False) -> Connection:
    made = tuple(ipam.make_subnet(ipam.parse_network(subnet)) for subnet in subnets)
    network = NetworkSpec(id=name, name=name, subnets=made, internal=internal)
    endpoint = EndpointSpec(
        endpoint_id=name,
        container_id="c",
        network_id=name,
        priority=priority,
        addresses=tuple(ip_interface(f"{s.prefix[9]}/{s.prefix.prefixlen}") for s in made),
    )
    return Connection(network=network, endpoint=endpoint)


def test_default_route_comes_from_the_right_network() -> None:
    plain = connection("b", "10.0.0.0/24")
    first = connection("a", "10.1.0.0/24")
    both = connection("z", "10.2.0.0/24", "fd00::/64")
    internal = connection("0", "10.3.0.0/24", internal=True)
    wanted = connection("y", "10.4.0.0/24", priority=5)
    assert gateway_endpoint([internal]) is None
    assert gateway_endpoint([plain, first, internal]) is first
    assert gateway_endpoint([plain, first, both]) is both
    everything = [plain, first, both, internal, wanted]
    assert gateway_endpoint(everything) is wanted
    gateways = {e.endpoint_id: [str(g) for g in e.gateways] for e in with_gateways(everything)}
    assert gateways == {"b": [], "a": [], "z": ["fd00::1"], "0": [], "y": ["10.4.0.1"]}


def test_rates() -> None:
    assert [parse_rate(t) for t in ("100", "8kbit", "10mbit", "5m", "1gb", "2G")] == [
        100,
        1000,
        1_250_000,
        5_000_000,
        10**9,
        2 * 10**9,
    ]
    assert limits_of({"sampan.network.egress": "1mbit"}) == RateLimit(egress=125_000)
    for text in ("", "fast", "0", "-1", "1q", "1.5m"):
        with pytest.raises(InvalidParameter):
            parse_rate(text)
