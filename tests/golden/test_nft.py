"""Network values -> nftables scripts, as text files beside this one."""

from __future__ import annotations

import os
from dataclasses import replace
from ipaddress import ip_address, ip_interface
from pathlib import Path

import pytest

from sampan.errors import InvalidParameter, Unavailable
from sampan.kernel.nftables import NftError
from sampan.network import ipam, nft
from sampan.network.firewall import Firewall
from sampan.network.model import EndpointSpec, NetworkSpec, PortBinding

GOLDEN = Path(__file__).parent / "network"


def network(number: int, **changes: object) -> NetworkSpec:
    subnets = tuple(
        ipam.make_subnet(ipam.parse_network(text))
        for text in (f"172.{number}.0.0/16", f"fd00:{number}::/64")
    )
    values = {"id": f"{number:012d}", "name": "n", "bridge": f"br{number}", "subnets": subnets}
    return NetworkSpec(**(values | changes))  # type: ignore[arg-type]


def check(name: str, text: str) -> None:
    """Compare with the golden file; SAMPAN_UPDATE_GOLDEN=1 rewrites it."""
    path = GOLDEN / name
    if os.environ.get("SAMPAN_UPDATE_GOLDEN"):
        path.write_text(text)
    assert path.read_text() == text


ENDPOINT = EndpointSpec(
    endpoint_id="e",
    container_id="c",
    network_id="n",
    addresses=(ip_interface("172.17.0.2/16"), ip_interface("fd00:17::2/64")),
)
PORTS = (
    PortBinding(container_port=80, host_port=8080),
    PortBinding(container_port=53, host_port=53, protocol="udp", host_address=ip_address("::")),
    PortBinding(container_port=443, host_port=443, host_address=ip_address("192.0.2.1")),
)


def test_whole_table() -> None:
    plain = network(17)
    rows = nft.published(plain, ENDPOINT, PORTS)
    check("everything.nft", nft.everything("sampan", [plain], rows))


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("internal", network(18, internal=True)),
        ("no-icc", network(18, icc=False, masquerade=False)),
        ("routed", network(18, gateway_mode_ipv4="routed", gateway_mode_ipv6="routed")),
        ("unprotected", network(18, gateway_mode_ipv4="nat-unprotected")),
        ("trusted", network(18, trusted_interfaces=("eth0", "wg0"))),
        ("snat", network(18, snat_ipv4=ip_address("192.0.2.9"))),
    ],
)
def test_kinds_of_networks(name: str, spec: NetworkSpec) -> None:
    check(f"{name}.up.nft", nft.network_up("sampan", spec))
    check(f"{name}.down.nft", nft.network_down("sampan", spec))


def test_ports_without_an_address_of_their_family_are_refused() -> None:
    only4 = EndpointSpec(
        endpoint_id="e",
        container_id="c",
        network_id="n",
        addresses=(ip_interface("172.17.0.2/16"),),
    )
    ports = [replace(port, protocol="sctp") for port in PORTS if port.protocol == "udp"]
    with pytest.raises(InvalidParameter, match="53/sctp on ::: the container has no IPv6 address"):
        nft.published(network(17), only4, ports)


@pytest.mark.parametrize(
    "changes",
    [{"bridge": 'x" } ; flush ruleset'}, {"id": "a;b"}, {"bridge": ""}, {"bridge": "a\nb"}],
)
def test_names_cannot_become_more_than_names(changes: dict[str, object]) -> None:
    with pytest.raises(InvalidParameter):
        nft.network_up("sampan", network(17, **changes))


class Recorder:
    """Takes scripts; refuses while told to."""

    def __init__(self) -> None:
        self.scripts: list[str] = []
        self.refuse = 0

    def run(self, script: str) -> str:
        if self.refuse:
            self.refuse -= 1
            raise NftError(22, "Error: no")
        self.scripts.append(script)
        return ""

    def query(self, command: str) -> str:
        raise AssertionError(command)


def test_firewall_rebuilds_when_a_change_is_refused_and_forgets_what_failed() -> None:
    runner = Recorder()
    firewall = Firewall("t", lambda: runner)
    plain = network(17)
    rows = nft.published(plain, ENDPOINT, PORTS)
    firewall.add_network(plain)
    firewall.add_network(plain)
    assert runner.scripts == [nft.everything("t", [plain], [], loopback6=_loopback6(runner))]
    runner.refuse = 1
    firewall.publish("e", rows)
    assert runner.scripts[1:] == [nft.everything("t", [plain], rows, loopback6=_loopback6(runner))]
    runner.refuse = 2
    with pytest.raises(Unavailable, match="cannot set nftables rules: Error: no"):
        firewall.add_network(network(18))
    assert firewall.unpublish("e") == rows
    assert firewall.unpublish("e") == ()
    firewall.remove_network(plain.id)
    firewall.remove_network(plain.id)
    assert runner.scripts[2:] == [nft.unpublish("t", rows), nft.network_down("t", plain)]


def _loopback6(runner: Recorder) -> bool:
    """What the firewall found out about this host."""
    return "::1 return\n    fib daddr" not in runner.scripts[0].partition("chain output")[2]
