"""linux.netDevices: devices of the runtime's network namespace become the container's."""

from __future__ import annotations

import json
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.kernel.oci.conftest import Runtime
from tests.kernel.oci.test_runtime_commands import left_behind

pytestmark = pytest.mark.skipif(shutil.which("ip") is None, reason="iproute2 is not installed")


def ip(*words: str) -> str:
    return subprocess.run(("ip", *words), check=True, capture_output=True, text=True).stdout


def shown(text: str) -> dict[str, Any]:
    (found,) = json.loads(text)
    return dict(found)


@pytest.fixture
def device() -> Iterator[str]:
    """A link with addresses of both families and an MTU of its own; its peer stays here."""
    name = f"nd{uuid.uuid4().hex[:6]}"
    ip("link", "add", name, "mtu", "1400", "type", "veth", "peer", "name", f"{name}p")
    ip("address", "add", "192.0.2.7/24", "broadcast", "192.0.2.200", "dev", name)
    ip("address", "add", "192.0.2.9", "peer", "192.0.2.10/32", "dev", name)
    ip("address", "add", "2001:db8::7/64", "nodad", "dev", name)
    ip("address", "add", "192.0.2.77/24", "valid_lft", "1000", "preferred_lft", "900", "dev", name)
    yield name
    subprocess.run(("ip", "link", "delete", f"{name}p"), check=False, capture_output=True)


@pytest.fixture
def namespace() -> Iterator[str]:
    name = f"sampan-test-{uuid.uuid4().hex[:8]}"
    ip("netns", "add", name)
    yield name
    ip("netns", "delete", name)


def in_container(runtime: Runtime, *words: str) -> str:
    pid = str(runtime.pid("c"))
    return subprocess.run(
        ("nsenter", "--net", "--target", pid, "ip", "-json", *words),
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def configure(
    runtime: Runtime, devices: dict[str, Any], *args: str, netns: str | None = ""
) -> None:
    """A container with ``devices``; ``netns``: the network namespace it joins, None for none."""
    config = runtime.config("c", *(args or ("true",)))
    config["linux"]["netDevices"] = devices
    kinds = config["linux"]["namespaces"]
    if netns is None:
        kinds[:] = [entry for entry in kinds if entry["type"] != "network"]
    elif netns:
        (network,) = (entry for entry in kinds if entry["type"] == "network")
        network["path"] = f"/run/netns/{netns}"
    runtime.write(config)


def exists(name: str) -> bool:
    return subprocess.run(("ip", "link", "show", name), capture_output=True).returncode == 0


@pytest.mark.parametrize(
    ("wanted", "inside"), [("", ""), ("eth0", "eth0"), ("net%d", "net0")], ids=["", "eth0", "%d"]
)
def test_it_moves_with_what_it_had(runtime: Runtime, device: str, wanted: str, inside: str) -> None:
    mac = shown(ip("-json", "link", "show", device))["address"]
    configure(runtime, {device: {"name": wanted} if wanted else {}}, "sleep", "1000")
    result = runtime.create("c")
    assert result.returncode == 0, result.stdout
    assert not exists(device)
    link = shown(in_container(runtime, "address", "show", inside or device))
    assert (link["address"], link["mtu"], "UP" in link["flags"]) == (mac, 1400, True)
    found = {
        (entry["local"], entry["prefixlen"], entry.get("broadcast"), entry.get("address"))
        for entry in link["addr_info"]
        if entry["scope"] == "global"
    }
    assert found == {
        ("192.0.2.7", 24, "192.0.2.200", None),
        ("192.0.2.9", 32, None, "192.0.2.10"),
        ("2001:db8::7", 64, None, None),
    }
    runtime.ok("delete", "--force", "c")
    assert left_behind(runtime) == []


def test_into_a_namespace_that_is_joined(runtime: Runtime, device: str, namespace: str) -> None:
    configure(runtime, {device: {"name": "eth0"}}, "sleep", "1000", netns=namespace)
    result = runtime.create("c")
    assert result.returncode == 0, result.stdout
    runtime.ok("delete", "--force", "c")
    # It belongs to the namespace, which is not ours (config-linux.md "Namespace Lifecycle").
    assert "eth0" in ip("-netns", namespace, "link")


def test_what_fails_leaves_it_where_it_was(runtime: Runtime, device: str, namespace: str) -> None:
    """The name it wants is taken in the container's namespace."""
    ip("-netns", namespace, "link", "add", "taken", "type", "veth", "peer", "name", "other")
    before = ip("-json", "address", "show", device)
    configure(runtime, {device: {"name": "taken"}}, netns=namespace)
    result = runtime("create", "--bundle", runtime.bundle, "c")
    assert result.returncode == 1
    assert (
        "moving the network device taken: the container has a device of that name" in result.stderr
    )
    assert ip("-json", "address", "show", device) == before
    assert left_behind(runtime) == []


def test_what_fails_after_it_moved_brings_it_back(
    runtime: Runtime, device: str, namespace: str
) -> None:
    """Without IPv6 in the container's namespace it cannot have its addresses there."""
    ip("link", "set", device, "up")

    def lasting() -> list[tuple[str, int, str]]:
        entries = shown(ip("-json", "address", "show", device))["addr_info"]
        return sorted(
            (entry["local"], entry["prefixlen"], entry.get("broadcast", ""))
            for entry in entries
            if entry["scope"] == "global" and entry["valid_life_time"] == 2**32 - 1
        )

    before = lasting()
    switch = "net.ipv6.conf.default.disable_ipv6=1"
    subprocess.run(("ip", "netns", "exec", namespace, "sysctl", "-wq", switch), check=True)
    configure(runtime, {device: {"name": "eth0"}}, netns=namespace)
    result = runtime("create", "--bundle", runtime.bundle, "c")
    assert result.returncode == 1
    assert "moving the network device" in result.stderr
    assert "eth0" not in ip("-netns", namespace, "link")
    assert lasting() == before
    assert "UP" in shown(ip("-json", "link", "show", device))["flags"]
    assert left_behind(runtime) == []


@pytest.mark.parametrize(
    ("devices", "message"),
    [
        ({"nosuchdevice": {}}, "moving the network device nosuchdevice: No such device"),
        ({"lo": {"name": "lo2"}}, "moving the network device"),
        ({"a/b": {}}, "'a/b' is no name of a network device"),
        ({"x": {"name": "%d%d"}}, "'%d%d' is no name of a network device"),
        ({"x": {"name": "sixteen-letters-"}}, "'sixteen-letters-' is no name"),
        ({"x": {"name": "z"}, "y": {"name": "z"}}, "two devices would be called z"),
    ],
)
def test_refused(runtime: Runtime, devices: dict[str, Any], message: str) -> None:
    configure(runtime, devices)
    result = runtime("create", "--bundle", runtime.bundle, "c")
    assert result.returncode == 1
    assert message in result.stderr
    assert left_behind(runtime) == []


def test_not_without_a_network_namespace(runtime: Runtime) -> None:
    configure(runtime, {"x": {}}, netns=None)
    result = runtime("create", "--bundle", runtime.bundle, "c")
    assert result.returncode == 1
    assert "linux.netDevices: no network namespace of its own" in result.stderr
