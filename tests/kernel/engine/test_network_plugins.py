"""Networks, addresses and interfaces made by programs of others: a plugin process, CNI's own."""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from sampan.engine.engine import Engine
from sampan.errors import InvalidParameter, NotFound, SampanError, Unsupported
from sampan.wire.container import EndpointIPAMConfig, EndpointSettings, HostConfig
from sampan.wire.hostconfig import PortBinding
from sampan.wire.network import (
    IPAM,
    IPAMConfig,
    NetworkConnectRequest,
    NetworkCreateRequest,
    NetworkDisconnectRequest,
)
from tests.engines import World, import_busybox, request, run, start
from tests.kernel.engine.plugins import PluginWorld, plugin
from tests.kernel.engine.test_volumes import kill_unseen

CNI = Path("/usr/lib/cni")


def calls(world: PluginWorld, method: str) -> list[dict[str, object]]:
    """The bodies of every call of a method."""
    return [json.loads(c.partition(" ")[2]) for c in world.calls if c.startswith(f"{method} ")]


def links() -> set[str]:
    return set(os.listdir("/sys/class/net"))


async def inspected(engine: Engine, name: str, network: str) -> EndpointSettings:
    settings = (await engine.containers.inspect(name)).network_settings
    assert settings is not None
    return (settings.networks or {})[network]


async def test_networks_of_a_plugin(world: World) -> None:
    plugins = PluginWorld(world.root)
    before = links()
    with plugin(plugins) as process:
        async with await plugins.open() as engine:
            await import_busybox(engine)
            config = [IPAMConfig(subnet="10.55.0.0/24", gateway="10.55.0.254")]
            made = await engine.networks.create(
                NetworkCreateRequest(
                    name="far", driver="other", ipam=IPAM(config=config), options={"o": "v"}
                )
            )
            [created] = calls(plugins, "NetworkDriver.CreateNetwork")
            assert created["IPv4Data"] == [
                {
                    "AddressSpace": "LocalDefault",
                    "Pool": "10.55.0.0/24",
                    "Gateway": "10.55.0.254/24",
                    "AuxAddresses": {},
                }
            ]
            assert (created["Options"] or {})["com.docker.network.generic"] == {"o": "v"}  # type: ignore[index]
            await start(engine, "server", host=HostConfig(network_mode="far"))
            host = HostConfig(network_mode="far")
            script = "ping -c1 -W2 server && ip route && ip -o link"
            done = await run(engine, "sh", "-c", script, host=host)
            assert done.code == 0, done.output
            assert "198.51.100.0/24 dev plug0" in done.output
            # live, both ways; the interface is the plugin's again afterwards
            await start(engine, "late")
            await engine.networks.connect("far", NetworkConnectRequest(container="late"))
            assert (await run(engine, "ping", "-c1", "-W2", "late", host=host)).code == 0
            await engine.networks.disconnect("far", NetworkDisconnectRequest(container="late"))
            body = NetworkConnectRequest(
                container="late",
                endpoint_config=EndpointSettings(driver_opts={"fail": "create"}),
            )
            with pytest.raises(SampanError, match=r"network driver other: .*endpoint refused"):
                await engine.networks.connect("far", body)
            pids = engine.core.containers.find("server").state.pid
            monitor_pid = _monitor(engine, "server")
        kill_unseen(pids, monitor_pid)
        async with await plugins.open() as engine:
            await engine.containers.remove("late", force=True)
            await engine.containers.remove("server")
            made_ = Counter(str(c["EndpointID"]) for c in calls(plugins, "NetworkDriver.Join"))
            left = Counter(str(c["EndpointID"]) for c in calls(plugins, "NetworkDriver.Leave"))
            assert set(made_) <= set(left)
            journal = plugins.config.data_root / "network-endpoints" / "plugins"
            assert list(journal.iterdir()) == []
            await engine.networks.remove(made.id or "")
            with pytest.raises(NotFound, match='plugin "nope" not found'):
                await engine.networks.create(NetworkCreateRequest(name="x", driver="nope"))
            assert links() - before <= {"sptest0"}
            # a plugin that is gone: said so, and nothing is half done
            await engine.networks.create(NetworkCreateRequest(name="gone", driver="other"))
            process.kill()
            process.wait()
            await engine.containers.create(request(["true"], HostConfig(network_mode="gone")), "c1")
            with pytest.raises(SampanError, match="plugin other does not answer"):
                await engine.containers.start("c1")
            assert not engine.core.fabric.leases(engine.core.fabric.find("gone"))


def _monitor(engine: Engine, name: str) -> int:
    from sampan.runtime.client import read_live

    container = engine.core.containers.find(name)
    live = read_live(engine.config.exec_containers / container.id)
    assert live is not None
    return live.monitor_pid


async def test_addresses_of_a_plugin(world: World) -> None:
    plugins = PluginWorld(world.root)
    with plugin(plugins):
        async with await plugins.open() as engine:
            await import_busybox(engine)
            made = await engine.networks.create(
                NetworkCreateRequest(name="net", enable_ipv6=True, ipam=IPAM(driver="other"))
            )
            shown = await engine.networks.inspect("net")
            assert shown.ipam is not None
            assert [(c.subnet, c.gateway) for c in shown.ipam.config or []] == [
                ("10.99.0.0/24", "10.99.0.1"),
                ("fd99::/64", "fd99::1"),
            ]
            host = HostConfig(network_mode="net", port_bindings={"80/tcp": []})
            await start(engine, "server", host=host)
            endpoint = await inspected(engine, "server", "net")
            assert (endpoint.ip_address, endpoint.global_ipv6_address) == ("10.99.0.2", "fd99::2")
            script = "ping -c1 -W2 server && ip route && cat /etc/hosts"
            done = await run(engine, "sh", "-c", script, host=HostConfig(network_mode="net"))
            assert done.code == 0, done.output
            assert "default via 10.99.0.1" in done.output
            wish = EndpointSettings(ipam_config=EndpointIPAMConfig(ipv4_address="10.99.0.77"))
            await start(engine, "late")
            body = NetworkConnectRequest(container="late", endpoint_config=wish)
            await engine.networks.connect("net", body)
            assert (await inspected(engine, "late", "net")).ip_address == "10.99.0.77"
            with pytest.raises(SampanError, match=r"pool 10.99.0.0/24 is out"):
                await engine.networks.create(
                    NetworkCreateRequest(name="again", ipam=IPAM(driver="other"))
                )
            pid, monitor = (
                engine.core.containers.find("server").state.pid,
                _monitor(engine, "server"),
            )
        kill_unseen(pid, monitor)
        async with await plugins.open() as engine:
            await engine.containers.remove("server")
            await engine.containers.remove("late", force=True)
            await engine.networks.remove(made.id or "")
    out = Counter(
        (c["PoolID"], str(c["Address"])) for c in calls(plugins, "IpamDriver.ReleaseAddress")
    )
    assert out["here/10.99.0.0/24", "10.99.0.77"] == 1
    assert len(calls(plugins, "IpamDriver.RequestAddress")) == sum(out.values())
    assert len(calls(plugins, "IpamDriver.ReleasePool")) == 2


def configuration(directory: Path, name: str, *more: object) -> Path:
    """A CNI list: bridge with host-local addresses kept below ``directory``."""
    path = directory / f"{name}.conflist"
    ranges = [[{"subnet": "10.66.0.0/24"}]]
    bridge = {
        "type": "bridge",
        "bridge": "cni-test0",
        "isGateway": True,
        "ipMasq": False,
        "ipam": {
            "type": "host-local",
            "dataDir": str(directory / "leases"),
            "ranges": ranges,
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    document = {"cniVersion": "1.0.0", "name": name, "plugins": [bridge, *more]}
    path.write_text(json.dumps(document))
    return path


def host_rules() -> str:
    """The iptables rules of this network namespace."""
    done = subprocess.run(["iptables-save"], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.skipif(not (CNI / "bridge").exists(), reason="needs containernetworking-plugins")
async def test_networks_of_cni(world: World) -> None:
    ports = {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True}
    conf = configuration(world.root, "cninet", ports)
    plain = configuration(world.root, "plain")
    leases = world.root / "leases" / "cninet"
    async with await world.open() as engine:
        await import_busybox(engine)
        for options, error in (
            ({"conf": "/no/such"}, "CNI configuration /no/such: No such file"),
            ({"conf": "nosuch"}, "no CNI configuration named nosuch"),
            ({"conf": str(conf), "bin": "/nowhere"}, "CNI plugin bridge is not in /nowhere"),
        ):
            with pytest.raises(SampanError, match=error):
                await engine.networks.create(
                    NetworkCreateRequest(name="bad", driver="cni", options=options)
                )
        for name, path in (("net", conf), ("plain", plain)):
            await engine.networks.create(
                NetworkCreateRequest(name=name, driver="cni", options={"conf": str(path)})
            )
        bindings = {"80/tcp": [PortBinding(host_port="8091")]}
        host = HostConfig(network_mode="net", port_bindings=bindings)
        await start(engine, "server", host=host)
        endpoint = await inspected(engine, "server", "net")
        assert (endpoint.ip_address or "").startswith("10.66.0.")
        assert endpoint.mac_address
        script = "ping -c1 -W2 server && ip route && ip -o -4 addr && cat /etc/hosts"
        client = HostConfig(network_mode="net")
        done = await run(engine, "sh", "-c", script, host=client, name="client")
        assert done.code == 0, done.output
        assert "127.0.0.1/8" in done.output
        own = (await engine.containers.inspect(done.id)).id or ""
        hosts = world.config.containers / own / "hosts"
        assert "10.66.0." in hosts.read_text()
        rules = host_rules()
        assert "--dport 8091" in rules
        with pytest.raises(Unsupported, match="none of its plugins has the capability portMapp"):
            await run(engine, "true", host=HostConfig(network_mode="plain", port_bindings=bindings))
        pid, monitor = engine.core.containers.find("server").state.pid, _monitor(engine, "server")
    held = {p.name for p in leases.iterdir() if p.name[0].isdecimal()}
    assert held == {endpoint.ip_address}
    kill_unseen(pid, monitor)
    async with await world.open() as engine:
        assert not [p for p in leases.iterdir() if p.name[0].isdecimal()]
        rules = host_rules()
        assert "8091" not in rules
        # a plugin that fails: told in its words, and what came before it is undone
        conf.write_text(conf.read_text().replace('"portmap"', '"tuning", "mtu": -5'))
        with pytest.raises(SampanError, match="CNI plugin tuning failed"):
            await engine.containers.start("server")
        assert not [p for p in leases.iterdir() if p.name[0].isdecimal()]
        assert not list((world.config.data_root / "network-endpoints" / "cni").iterdir())
        for name in ("server", "client"):
            await engine.containers.remove(name)
        await engine.networks.remove("net")
        with pytest.raises(InvalidParameter, match="addresses of a CNI network"):
            await engine.networks.create(
                NetworkCreateRequest(
                    name="n1",
                    driver="cni",
                    options={"conf": str(plain)},
                    ipam=IPAM(config=[IPAMConfig(subnet="10.1.0.0/24")]),
                )
            )
