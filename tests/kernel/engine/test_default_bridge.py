"""The network ``bridge``, as the daemon's options want it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from sampan.engine.config import EngineConfig
from sampan.engine.engine import Engine
from sampan.errors import InvalidParameter
from sampan.wire.container import HostConfig
from tests.engines import World, execute, import_busybox, run, start


@dataclass(slots=True)
class Configured(World):
    """A world whose engine is opened with options."""

    options: dict[str, object] = field(default_factory=dict)

    @property
    def config(self) -> EngineConfig:
        return replace(World(self.root).config, **self.options)  # type: ignore[arg-type]


@pytest.fixture
def configured(world: World) -> Configured:
    return Configured(world.root)


async def subnets(engine: Engine) -> dict[str, tuple[str | None, str | None]]:
    """(gateway, range) by subnet."""
    shown = await engine.networks.inspect("bridge")
    entries = (shown.ipam.config if shown.ipam is not None else None) or []
    return {str(e.subnet): (e.gateway, e.ip_range) for e in entries}


async def test_ipv6_of_the_default_bridge(configured: Configured) -> None:
    async with await configured.open() as engine:
        await import_busybox(engine)
        [before] = await subnets(engine)
        assert not (await engine.networks.inspect("bridge")).enable_ipv6
        await start(engine, "old")
    # IPv6 comes with a restart; what ran goes on as it was
    configured.options = {"bridge_ipv6": True}
    async with await configured.open() as engine:
        assert (await engine.networks.inspect("bridge")).enable_ipv6
        first, second = await subnets(engine)
        assert first == before
        assert second.startswith("fd")
        assert await execute(engine, "old", "ping", "-c1", "-W2", "127.0.0.1") == 0
        await start(engine, "new")
        settings = (await engine.containers.inspect("new")).network_settings
        assert settings is not None
        [endpoint] = (settings.networks or {}).values()
        address = endpoint.global_ipv6_address or ""
        assert address.startswith(second.partition("::")[0])
        done = await run(engine, "ping", "-6", "-c1", "-W2", address, host=HostConfig())
        assert done.code == 0, done.output
    async with await configured.open() as engine:
        assert set(await subnets(engine)) == {first, second}  # chosen once


async def test_addresses_of_the_default_bridge(configured: Configured) -> None:
    configured.options = {
        "bridge_address": "10.31.0.9/16",
        "fixed_cidr": "10.31.7.0/24",
        "bridge_ipv6": True,
        "bridge_address6": "fd31::9/64",
        "fixed_cidr6": "fd31::7:0/112",
        "default_gateway6": "fd31::fe",
    }
    async with await configured.open() as engine:
        await import_busybox(engine)
        assert await subnets(engine) == {
            "10.31.0.0/16": ("10.31.0.9", "10.31.7.0/24"),
            "fd31::/64": ("fd31::9", "fd31::7:0/112"),
        }
        done = await run(engine, "sh", "-c", "ip addr; ip route; ip -6 route")
        for expected in (
            "inet 10.31.7.0/16",
            "default via 10.31.0.9",
            "inet6 fd31::7:",
            "default via fd31::fe",
        ):
            assert expected in done.output, done.output
    # without an address of the bridge, its subnet is the containers'
    configured.options = {"fixed_cidr": "10.32.0.0/24", "default_gateway": "10.32.0.77"}
    async with await configured.open() as engine:
        assert await subnets(engine) == {"10.32.0.0/24": ("10.32.0.1", None)}
        assert "via 10.32.0.77" in (await run(engine, "ip", "route")).output


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"bridge_address6": "fd31::9/64"}, "need --ipv6"),
        ({"bridge_address": "fd31::9/64"}, "fd31::/64 is no IPv4 subnet"),
        ({"bridge_address": "nonsense"}, "invalid CIDR address: nonsense"),
        ({"bridge_address": "10.31.0.9/16", "fixed_cidr": "10.33.0.0/24"}, "ip-range 10.33"),
        ({"fixed_cidr": "10.31.0.0/24", "default_gateway": "10.34.0.1"}, "is not in subnet"),
    ],
)
async def test_options_that_do_not_fit(
    configured: Configured, options: dict[str, object], words: str
) -> None:
    configured.options = options
    with pytest.raises(InvalidParameter, match=words):
        await configured.open()
