"""What the network API's fields and options do to containers, read back from the kernel."""

from __future__ import annotations

import json
import socket
from collections.abc import Awaitable, Callable

import pytest

from sampan.engine.engine import Engine
from sampan.errors import Conflict, Forbidden, InvalidParameter, SampanError, Unsupported
from sampan.kernel import rtdump
from sampan.kernel.netlink import NetlinkSocket
from sampan.wire.container import (
    ContainerState,
    EndpointIPAMConfig,
    EndpointSettings,
    HostConfig,
    NetworkingConfig,
)
from sampan.wire.exec import ExecCreateRequest, ExecStartRequest
from sampan.wire.hostconfig import PortBinding
from sampan.wire.network import (
    IPAM,
    ConfigReference,
    IPAMConfig,
    NetworkConnectRequest,
    NetworkCreateRequest,
    NetworkDisconnectRequest,
)
from tests.engines import Outcome, World, converse, execute, request, run, start

EGRESS = "sampan.network.egress"
SYSCTLS = "com.docker.network.endpoint.sysctls"
IFNAME = "com.docker.network.endpoint.ifname"


def network(name: str, *subnets: IPAMConfig, **fields: object) -> NetworkCreateRequest:
    return NetworkCreateRequest(name=name, ipam=IPAM(config=list(subnets) or None), **fields)


def on(**endpoints: EndpointSettings) -> dict[str, object]:
    """The fields of a create request for these networks."""
    return {"networking_config": NetworkingConfig(endpoints_config=dict(endpoints))}


async def test_addresses_are_where_the_subnets_say(engine: Engine) -> None:
    wide = IPAMConfig(
        subnet="10.80.0.0/16",
        ip_range="10.80.7.0/30",
        gateway="10.80.0.9",
        auxiliary_addresses={"router": "10.80.7.1"},
    )
    six = IPAMConfig(subnet="fd80::/64", gateway="fd80::9")
    await engine.networks.create(
        network(
            "net", wide, six, enable_ipv6=True, options={"com.docker.network.driver.mtu": "1400"}
        )
    )
    host = HostConfig(network_mode="net")
    script = "ip -o addr; ip route; ip -6 route; ip -o link"
    settings = EndpointSettings(
        mac_address="02:00:00:00:00:77",
        driver_opts={SYSCTLS: "net.ipv4.conf.IFNAME.log_martians=1", IFNAME: "lan"},
    )
    done = await run(engine, "sh", "-c", script, host=host, **on(net=settings))
    for expected in (
        "inet 10.80.7.0/16",
        "inet6 fd80::1/64",
        "default via 10.80.0.9 dev lan",
        "default via fd80::9 dev lan",
        "02:00:00:00:00:77",
        "mtu 1400",
    ):
        assert expected in done.output, done.output
    # the range holds four addresses, one of them set aside; others can be asked for
    held = [f"c{number}" for number in range(3)]
    for name in held:
        await start(engine, name, host=host)
    with pytest.raises(SampanError, match="no available IP addresses"):
        await start(engine, "late", host=host)
    wish = EndpointSettings(ipam_config=EndpointIPAMConfig(ipv4_address="10.80.200.1"))
    await start(engine, "fixed", host=host, **on(net=wish))
    with pytest.raises(Conflict, match=r"Address already in use: 10.80.200.1"):
        await start(engine, "twice", host=host, **on(net=wish))
    lost = EndpointSettings(ipam_config=EndpointIPAMConfig(ipv4_address="10.81.0.1"))
    with pytest.raises(InvalidParameter, match=r"no configured subnet contains IP address 10.81"):
        await start(engine, "lost", host=host, **on(net=lost))
    assert await execute(engine, "c0", "ping", "-c1", "-W2", "fixed") == 0


async def test_several_networks_and_priorities(engine: Engine) -> None:
    for name, prefix in (("alpha", "10.81"), ("beta", "10.82"), ("inner", "10.83")):
        config = IPAMConfig(subnet=f"{prefix}.0.0/24")
        await engine.networks.create(network(name, config, internal=name == "inner"))
    await engine.networks.create(
        network("bare", options={"com.docker.network.bridge.inhibit_ipv4": "true"})
    )
    host = HostConfig(network_mode="inner")
    plain = EndpointSettings()

    async def gateway(**endpoints: EndpointSettings) -> Outcome:
        return await run(engine, "ip", "route", host=host, **on(inner=plain, **endpoints))

    for endpoints, expected in (
        ({"alpha": plain, "beta": plain}, "default via 10.81.0.1"),
        ({"alpha": plain, "beta": EndpointSettings(gw_priority=1)}, "default via 10.82.0.1"),
    ):
        assert expected in (await gateway(**endpoints)).output
    assert "default" not in (await gateway()).output
    # live: the default route comes with the first network that has one
    await start(engine, "grows", host=host)
    body = NetworkConnectRequest(
        container="grows", endpoint_config=EndpointSettings(aliases=["other-name"])
    )
    await engine.networks.connect("beta", body)
    assert await execute(engine, "grows", "ping", "-c1", "-W2", "10.82.0.1") == 0
    there = HostConfig(network_mode="beta")
    assert (await run(engine, "ping", "-c1", "-W2", "other-name", host=there)).code == 0
    assert (await run(engine, "ping", "-c1", "-W1", "grows", host=HostConfig())).code != 0


async def output(engine: Engine, ref: str, *command: str) -> str:
    """What one more program in a container says."""
    body = ExecCreateRequest(cmd=list(command), attach_stdout=True, attach_stderr=True)
    exec_id = await engine.execs.create(ref, body)
    return await converse(await engine.execs.start(exec_id, ExecStartRequest()))


def greeted(port: int) -> bool:
    """Whether the program behind a port of the host says hello."""
    with socket.create_connection(("127.0.0.1", port), 5) as client:
        client.settimeout(5)
        return client.recv(10) == b"hello\n"


async def test_routes_and_ports_move_as_networks_come_and_go(world: World, engine: Engine) -> None:
    """The default route follows priorities live, and published ports follow the route; a daemon
    that was away knows of it."""
    for name, subnets in (
        ("one", ["10.86.0.0/24"]),
        ("two", ["10.87.0.0/24", "fd87::/64"]),
        ("shut", ["10.88.0.0/24"]),
    ):
        configs = [IPAMConfig(subnet=subnet) for subnet in subnets]
        fields = {"enable_ipv6": len(subnets) > 1, "internal": name == "shut"}
        await engine.networks.create(network(name, *configs, **fields))
    ports = {"80/tcp": [PortBinding(host_port="18700"), PortBinding()]}
    serve = ["nc", "-ll", "-p", "80", "-e", "echo", "hello"]
    host = HostConfig(network_mode="one", port_bindings=ports)
    await engine.containers.create(request(serve, host), "moves")
    await engine.containers.start("moves")

    async def seen(*, v4: str, v6: str = "") -> None:
        """The default routes are these, and both host ports lead to the container."""
        for family, gateway in (("-4", v4), ("-6", v6)):
            found = await output(engine, "moves", "ip", family, "route")
            routes = [line.split()[2] for line in found.splitlines() if line.startswith("default")]
            assert routes == ([gateway] if gateway else []), found
        shown = (await engine.containers.inspect("moves")).network_settings
        assert shown is not None
        held = {b.host_port for b in (shown.ports or {})["80/tcp"] or ()}
        assert "18700" in held
        assert len(held) == 2
        known.update(held)
        assert known == held  # the one chosen for it stays its own
        assert all(greeted(int(port or 0)) for port in held)

    known: set[str | None] = set()
    await seen(v4="10.86.0.1")
    priority = NetworkConnectRequest(
        container="moves", endpoint_config=EndpointSettings(gw_priority=5)
    )
    await engine.networks.connect("two", priority)
    await seen(v4="10.87.0.1", v6="fd87::1")
    await engine.networks.disconnect("two", NetworkDisconnectRequest(container="moves"))
    await seen(v4="10.86.0.1")
    await engine.networks.connect("two", NetworkConnectRequest(container="moves"))
    await engine.networks.connect("shut", NetworkConnectRequest(container="moves"))
    await engine.networks.disconnect("one", NetworkDisconnectRequest(container="moves"))
    await seen(v4="10.87.0.1", v6="fd87::1")
    # a connection that cannot be made moves nothing
    wish = EndpointSettings(
        gw_priority=9, driver_opts={SYSCTLS: "net.ipv4.conf.IFNAME.no_such_setting=1"}
    )
    with pytest.raises(SampanError, match="no_such_setting"):
        await engine.networks.connect(
            "one", NetworkConnectRequest(container="moves", endpoint_config=wish)
        )
    await seen(v4="10.87.0.1", v6="fd87::1")
    await engine.networks.connect("one", NetworkConnectRequest(container="moves"))
    await engine.close()
    again = await world.open()
    try:
        held = await output(again, "moves", "ip", "route")
        assert "default via 10.87.0.1" in held
        await again.networks.disconnect("two", NetworkDisconnectRequest(container="moves"))
        assert "default via 10.86.0.1" in await output(again, "moves", "ip", "route")
        assert greeted(18700)
        await again.networks.disconnect("one", NetworkDisconnectRequest(container="moves"))
        with pytest.raises(OSError, match="refused"):
            greeted(18700)
    finally:
        await again.close()


async def test_a_network_namespace_of_others(engine: Engine) -> None:
    await start(engine, "owner")
    pid = ((await engine.containers.inspect("owner")).state or ContainerState()).pid
    there = HostConfig(network_mode=f"ns:/proc/{pid}/ns/net")
    shown = await output(engine, "owner", "ip", "addr")
    assert (await run(engine, "ip", "addr", host=there)).output == shown
    await start(engine, "guest", host=there)
    with pytest.raises(Forbidden, match="sharing network namespace"):
        await engine.networks.connect("bridge", NetworkConnectRequest(container="guest"))
    await engine.containers.remove("guest", force=True)
    assert await output(engine, "owner", "ip", "addr") == shown
    for mode, ports, words in (
        ("ns:relative", None, "an absolute path"),
        ("ns:/proc/self/ns/net", {"80/tcp": [PortBinding()]}, "port publishing and the ns"),
        ("ns:/run/netns/none-such", None, "/run/netns/none-such: No such file"),
    ):
        with pytest.raises(SampanError, match=words):
            await run(engine, "true", host=HostConfig(network_mode=mode, port_bindings=ports))


async def test_an_isolated_network_has_no_gateway(engine: Engine) -> None:
    isolated = {f"com.docker.network.bridge.gateway_mode_ipv{v}": "isolated" for v in (4, 6)}
    fields = {"internal": True, "enable_ipv6": True, "options": isolated}
    subnet = IPAMConfig(subnet="10.89.0.0/24")
    made = await engine.networks.create(network("alone", subnet, **fields))
    shown = (await engine.networks.inspect("alone")).ipam
    assert shown is not None
    assert [entry.gateway for entry in shown.config or []] == [None, None]
    done = await run(engine, "sh", "-c", "ip addr; ip route", host=HostConfig(network_mode="alone"))
    assert "inet 10.89.0.1/24" in done.output
    assert "default" not in done.output
    with NetlinkSocket() as sock:
        bridge = rtdump.link(sock, f"br-{made.id[:12]}")
        assert bridge is not None
        held = [a.interface for a in rtdump.addresses(sock) if a.index == bridge.index]
    assert not [a for a in held if not a.is_link_local]


async def test_loopback_is_up_without_any_network(engine: Engine) -> None:
    for fields in ({"host": HostConfig(network_mode="none")}, {"network_disabled": True}):
        done = await run(engine, "sh", "-c", "ip addr; ping -c1 127.0.0.1", **fields)
        assert "127.0.0.1/8" in done.output
        assert done.code == 0, done.output


async def test_configuration_only_networks(engine: Engine) -> None:
    config = network(
        "conf",
        IPAMConfig(subnet="10.84.0.0/24"),
        config_only=True,
        options={"com.docker.network.driver.mtu": "1300"},
    )
    await engine.networks.create(config)
    reference = ConfigReference(network="conf")
    with pytest.raises(InvalidParameter, match="user specified configurations are not supported"):
        await engine.networks.create(
            network("own", IPAMConfig(subnet="10.1.0.0/24"), config_from=reference)
        )
    await engine.networks.create(NetworkCreateRequest(name="made", config_from=reference))
    done = await run(engine, "sh", "-c", "ip addr", host=HostConfig(network_mode="made"))
    assert "10.84.0.2/24" in done.output
    assert "mtu 1300" in done.output
    with pytest.raises(Forbidden, match="configuration-only"):
        await start(engine, "never", host=HostConfig(network_mode="conf"))
    with pytest.raises(Forbidden, match="in use by made"):
        await engine.networks.remove("conf")
    await engine.containers.remove(done.id)
    await engine.containers.remove("never")
    await engine.networks.remove("made")
    await engine.networks.remove("conf")


async def test_limits_and_options_are_done_or_refused(engine: Engine) -> None:
    await engine.networks.create(network("slow", options={EGRESS: "8mbit"}))
    host = HostConfig(network_mode="slow")
    await start(engine, "one", host=host)
    await start(engine, "two", host=host, **on(slow=EndpointSettings(driver_opts={EGRESS: "2m"})))
    for name, rate in (("one", 1_000_000), ("two", 2_000_000)):
        [plug] = engine.core.containers.find(name).endpoints.values()
        assert plug.endpoint.limits.egress == rate
    for options, error in (
        ({EGRESS: "fast"}, "invalid rate"),
        ({"sampan.network.egres": "1m"}, "option sampan.network.egres is not supported"),
        ({"com.docker.network.endpoint.nope": "1"}, "endpoint.nope is not supported"),
        ({IFNAME: "a/b"}, "invalid value 'a/b' of endpoint option"),
        ({SYSCTLS: "net.core.somaxconn=1"}, "invalid endpoint sysctl"),
    ):
        with pytest.raises(SampanError, match=error):
            await run(engine, "true", host=host, **on(slow=EndpointSettings(driver_opts=options)))
    with pytest.raises(Unsupported, match="not supported by driver macvlan"):
        await engine.networks.create(
            network("mac", driver="macvlan", options={"sampan.network.ingress": "1m"})
        )
    for fields in (
        {"scope": "swarm"},
        {"ingress": True},
        {"options": {"com.docker.network.bridge.nope": "1"}},
        {"driver": "nope"},
    ):
        with pytest.raises(SampanError):
            await engine.networks.create(network("refused", **fields))
    assert not engine.core.fabric.leases(engine.core.fabric.find("bridge"))


async def test_filters_of_networks(engine: Engine) -> None:
    await engine.networks.create(network("lab-a", labels={"k": "v"}))
    await engine.networks.create(network("lab-b", driver="macvlan"))
    await start(engine, "user", host=HostConfig(network_mode="lab-a"))
    lists: Callable[[dict[str, list[str]]], Awaitable[list[object]]] = engine.networks.list
    shown = await engine.networks.inspect("lab-a")
    for filters, names in (
        ({"name": ["lab"]}, {"lab-a", "lab-b"}),
        ({"driver": ["macvlan"]}, {"lab-b"}),
        ({"id": [(shown.id or "")[:20]]}, {"lab-a"}),
        ({"label": ["k=v"]}, {"lab-a"}),
        ({"label": ["k=w"]}, set()),
        ({"scope": ["local"], "type": ["custom"]}, {"lab-a", "lab-b"}),
        ({"scope": ["swarm"]}, set()),
        ({"type": ["builtin"]}, {"bridge", "host", "none"}),
        ({"dangling": ["true"]}, {"lab-b"}),
        ({"dangling": ["false"]}, {"lab-a", "bridge", "host", "none"}),
    ):
        found = {getattr(item, "name", "") for item in await lists(filters)}
        assert found == names, json.dumps(filters)
    for filters in ({"nope": ["x"]}, {"type": ["x"]}, {"dangling": ["maybe"]}):
        with pytest.raises(InvalidParameter):
            await lists(filters)
    assert (await engine.networks.prune({"until": ["24h"]})).networks_deleted is None
    assert (await engine.networks.prune({"label!": ["k"]})).networks_deleted == ["lab-b"]


async def test_a_container_that_shares_an_ended_ones_network_loses_it(engine: Engine) -> None:
    """Nobody has an address on the network that is leased to somebody else."""
    await engine.networks.create(network("net", IPAMConfig(subnet="10.85.0.0/29")))
    host = HostConfig(network_mode="net")
    await start(engine, "owner", host=host)
    await start(engine, "guest", host=HostConfig(network_mode="container:owner"))
    await engine.containers.stop("owner", timeout=0)
    done = await run(engine, "ip", "-o", "-4", "addr", host=host)
    assert "10.85.0.2/29" in done.output
    assert await execute(engine, "guest", "ping", "-c1", "-W1", "10.85.0.1") != 0
