"""Beside a running firewalld: bridges in a zone of ours, kept there, and nothing else changed."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.kernel import netns
from sampan.network.bridge import BridgeDriver
from sampan.network.model import HostPolicy, PortBinding

from .conftest import HOST4, HOST6, OUTSIDE4, OUTSIDE6, World, make_network
from .test_host_firewall import eventually

BUS = """<busconfig>
  <type>system</type>
  <listen>unix:path={}</listen>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
</busconfig>
"""


class Firewalld:
    """One with a bus and a configuration of its own, in this thread's network namespace."""

    def __init__(self, directory: Path) -> None:
        self.bus = str(directory / "bus")
        self._configuration = directory / "etc"
        for name in ("zones", "policies"):
            (self._configuration / name).mkdir(parents=True)
        shutil.copy("/etc/firewalld/firewalld.conf", self._configuration)
        (directory / "bus.conf").write_text(BUS.format(self.bus))
        self.environment = os.environ | {"DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={self.bus}"}
        self._daemon = subprocess.Popen(
            ["dbus-daemon", f"--config-file={directory / 'bus.conf'}", "--nofork"],
            stderr=subprocess.DEVNULL,
        )
        assert eventually(lambda: os.path.exists(self.bus))
        self._firewalld: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._firewalld = subprocess.Popen(
            ["firewalld", "--nofork", "--nopid", "--system-config", str(self._configuration)],
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        assert eventually(lambda: self.ask("--state") == "running")

    def stop(self) -> None:
        if self._firewalld is not None:
            self._firewalld.terminate()
            self._firewalld.wait(20)
            self._firewalld = None

    def close(self) -> None:
        self.stop()
        self._daemon.kill()
        self._daemon.wait()

    def ask(self, *arguments: str) -> str:
        """What firewall-cmd answers; "" when it fails."""
        done = subprocess.run(
            ["firewall-cmd", *arguments], env=self.environment, capture_output=True, text=True
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    def members(self) -> list[str]:
        """The bridges in our zone."""
        return self.ask("--zone=sampan", "--list-interfaces").split()


@pytest.fixture
def firewalld(world: World, tmp_path: Path) -> Iterator[Firewalld]:
    if shutil.which("firewalld") is None:
        pytest.skip("firewalld is not installed")
    with contextlib.closing(Firewalld(tmp_path)) as started:
        yield started


def use(world: World, firewalld: Firewalld, *, respect: bool = False) -> BridgeDriver:
    """A driver that knows of the bus, in place of the world's."""
    world.driver.close()
    world.driver = BridgeDriver("sampan", HostPolicy(respect=respect, system_bus=firewalld.bus))
    return world.driver


def test_containers_reach_out_and_are_reached(world: World, firewalld: Firewalld) -> None:
    firewalld.start()
    driver = use(world, firewalld)
    net, other = make_network(17), make_network(18)
    driver.ensure(net)
    driver.ensure(other)
    assert eventually(lambda: sorted(firewalld.members()) == sorted([net.bridge, other.bridge]))
    assert firewalld.ask("--info-policy=sampan-forwarding").count("ACCEPT") == 1
    ports = (PortBinding(container_port=80, host_port=8080),)
    one, endpoint, _ = world.start(net, 2, ports=ports)
    two, _, _ = world.start(other, 2)
    for fd, port, name in ((one, 80, "one"), (two, 80, "two"), (world.outside, 80, "outside")):
        world.serve(fd, port, name)
    world.serve(world.host, 99, "host")

    def open_both_ways() -> bool:
        return (
            world.ask(one, OUTSIDE4, 80, patience=1) == f"outside {HOST4}"
            and world.ask(one, OUTSIDE6, 80, patience=1) == f"outside {HOST6}"
            and world.ask(world.outside, HOST4, 8080, patience=1) == f"one {OUTSIDE4}"
            and world.ask(world.outside, HOST6, 8080, patience=1) == f"one {OUTSIDE6}"
        )

    assert open_both_ways()
    # our isolation and firewalld's own closed ports are as they were
    assert world.unreachable(one, "172.18.0.2", 80)
    assert world.unreachable(world.outside, HOST4, 99)
    # bindings are not permanent: after a reload, and after a restart, they are made again
    assert firewalld.ask("--reload")
    assert eventually(open_both_ways)
    assert world.unreachable(world.outside, HOST4, 99)
    firewalld.stop()
    assert eventually(open_both_ways)
    firewalld.start()
    assert eventually(lambda: net.bridge in firewalld.members())
    assert eventually(open_both_ways)
    driver.detach(net, endpoint, one)
    driver.remove(net)
    assert firewalld.members() == [other.bridge]
    # an engine that was killed in between left this one
    assert firewalld.ask("--zone=sampan", "--add-interface=br-0123456789ab")
    driver.remove(other)
    assert firewalld.members() == []
    assert "sampan" in firewalld.ask("--get-zones").split()


def test_closed_ports_stay_closed_where_the_host_is_respected(
    world: World, firewalld: Firewalld
) -> None:
    """Those of the zone packets come in by, or come from; ours is not used then."""
    firewalld.start()
    net = make_network(17)
    use(world, firewalld).ensure(net)
    assert eventually(lambda: firewalld.members() == [net.bridge])
    driver = use(world, firewalld, respect=True)
    driver.converge([(net, [])])
    assert eventually(lambda: firewalld.members() == [])
    assert firewalld.ask("--zone=internal", "--add-interface=uplink")
    assert firewalld.ask("--zone=internal", "--add-port=8080/tcp")
    assert firewalld.ask("--zone=public", "--add-port=8081/tcp")
    numbers = (8080, 8081)
    ports = tuple(PortBinding(container_port=80, host_port=number) for number in numbers)
    one, _, _ = world.start(net, 2, ports=ports)
    world.serve(one, 80, "one")

    def reached(host: str) -> list[int]:
        return [n for n in numbers if world.ask(world.outside, host, n, patience=1)]

    assert eventually(lambda: reached(HOST4) == reached(HOST6) == [8080])
    assert world.ask(world.host, HOST4, 8081).startswith("one")
    assert firewalld.ask("--zone=internal", "--remove-interface=uplink")
    assert eventually(lambda: reached(HOST4) == reached(HOST6) == [8081])
    assert firewalld.ask("--zone=internal", f"--add-source={OUTSIDE4}")
    assert eventually(lambda: reached(HOST4) == [8080])
    assert reached(HOST6) == [8081]
    assert firewalld.ask("--reload")
    assert eventually(lambda: reached(HOST4) == reached(HOST6) == [])
    driver.remove(net)


def test_a_firewalld_that_comes_later(world: World, firewalld: Firewalld) -> None:
    driver = use(world, firewalld)
    net = make_network(17)
    driver.ensure(net)
    one, _, _ = world.start(net, 2)
    world.serve(world.outside, 80, "outside")
    assert world.ask(one, OUTSIDE4, 80)
    firewalld.start()
    assert eventually(lambda: firewalld.members() == [net.bridge])
    assert world.ask(one, OUTSIDE4, 80)
    driver.remove(net)


def test_a_bridge_that_its_administrator_put_elsewhere(world: World, firewalld: Firewalld) -> None:
    firewalld.start()
    net, other, third = make_network(17), make_network(18), make_network(19)
    driver = use(world, firewalld)
    driver.ensure(other)
    assert eventually(lambda: firewalld.members() == [other.bridge])
    assert firewalld.ask("--zone=trusted", f"--add-interface={net.bridge}")
    driver.ensure(net)
    driver.ensure(third)
    assert sorted(firewalld.members()) == [other.bridge, third.bridge]
    assert firewalld.ask(f"--get-zone-of-interface={net.bridge}") == "trusted"
    driver.remove(net)
    assert firewalld.ask(f"--get-zone-of-interface={net.bridge}") == "trusted"
    driver.remove(other)


def test_a_firewalld_of_another_network_namespace(world: World, firewalld: Firewalld) -> None:
    with netns.entered(world.outside):
        firewalld.start()
    driver = use(world, firewalld)
    net = make_network(17)
    driver.ensure(net)
    assert not eventually(lambda: "sampan" in firewalld.ask("--get-zones").split(), seconds=4)
    driver.remove(net)
