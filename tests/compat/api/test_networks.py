"""Networks and volumes by the docker command line, judged by the packets that arrive."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sampan.kernel import netns
from tests.compat.conftest import CLI, DockerCli, Eventually, Sampand, busybox_archive

MTU, ICC = "com.docker.network.driver.mtu", "com.docker.network.bridge.enable_icc"
REPOSITORY = Path(__file__).parents[3]


@dataclass(frozen=True)
class Peer:
    """A running container seen from its network namespace."""

    docker: DockerCli
    name: str
    namespace: int

    def address(self, network: str, key: str = "IPAddress") -> str:
        return self.docker.out(
            "inspect", "-f", f"{{{{.NetworkSettings.Networks.{network}.{key}}}}}", self.name
        )

    def open(self, address: str, kind: int) -> socket.socket:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        return netns.open_socket(self.namespace, family, kind)

    def listen(self, kind: int = socket.SOCK_STREAM) -> socket.socket:
        """A socket on port 9 of every address."""
        found = self.open("::", kind)
        found.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        found.bind(("::", 9))
        if kind == socket.SOCK_STREAM:
            found.listen(64)
        return found

    def reaches(self, address: str) -> bool:
        """Whether a TCP connection to port 9 of an address comes about."""
        with self.open(address, socket.SOCK_STREAM) as sock:
            sock.settimeout(0.5)
            return sock.connect_ex((address, 9)) == 0

    def send(self, word: bytes, address: str) -> None:
        with self.open(address, socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError):
            sock.sendto(word, (address, 9))

    def resolves(self, name: str) -> bool:
        done = self.docker("exec", self.name, "nslookup", "-type=a", name, status=None)
        return done.returncode == 0 and "Address" in done.stdout.partition("Name:")[2]


@dataclass(frozen=True)
class Two:
    """Networks ``red`` and ``blue``; ``r`` and ``b`` on one each, ``both`` on both."""

    r: Peer
    b: Peer
    both: Peer


@pytest.fixture
def two(docker: DockerCli) -> Iterator[Two]:
    peers = {}
    with contextlib.ExitStack() as stack:
        for name, number in (("red", 91), ("blue", 92)):
            subnets = ("--subnet", f"10.{number}.0.0/24", "--subnet", f"fd{number}::/64")
            docker("network", "create", "--ipv6", *subnets, name)
            stack.callback(docker, "network", "rm", name)
        for name, network in (("r", "red"), ("b", "blue"), ("both", "red")):
            docker("run", "-d", "--name", f"net-{name}", "--network", network,
                   "--network-alias", f"alias-{name}", "busybox", "sleep", "1000")  # fmt: skip
            stack.callback(docker, "rm", "-f", f"net-{name}")
            pid = docker.out("inspect", "-f", "{{.State.Pid}}", f"net-{name}")
            namespace = netns.open_path(f"/proc/{pid}/ns/net")
            stack.callback(os.close, namespace)
            peers[name] = Peer(docker, f"net-{name}", namespace)
            listening = peers[name].listen()
            stack.callback(listening.close)
        docker("network", "connect", "--alias", "of-both", "blue", "net-both")
        yield Two(**peers)


def test_two_networks_share_nothing_but_the_container_on_both(
    docker: DockerCli, sampand: Sampand, two: Two
) -> None:
    r, b, both = two.r, two.b, two.both
    red6, blue6 = (both.address(net, "GlobalIPv6Address") for net in ("red", "blue"))
    red, blue = both.address("red"), both.address("blue")
    there, there6 = b.address("blue"), b.address("blue", "GlobalIPv6Address")
    assert all(both.reaches(a) for a in (r.address("red"), there, there6))
    assert all(r.reaches(a) for a in (red, red6))
    assert not any(r.reaches(a) for a in (there, there6, blue, blue6))
    for who, name, known in (
        (r, "net-both", True), (r, "alias-both", True), (r, "of-both", False),
        (r, "net-b", False), (r, "alias-b", False), (b, "of-both", True),
        (both, "net-r", True), (both, "alias-b", True),
    ):  # fmt: skip
        assert who.resolves(name) is known, (who, name)
    # datagrams that may not arrive do not: what was sent last is all that came
    with b.listen(socket.SOCK_DGRAM) as got:
        r.send(b"forbidden", there)
        r.send(b"forbidden", there6)
        both.send(b"allowed", there)
        assert got.recv(100) == b"allowed"
    # a crash of the daemon changes nothing
    sampand.restart(signal.SIGKILL)
    assert both.reaches(there)
    assert not r.reaches(there)
    assert r.resolves("net-both")
    assert not r.resolves("net-b")
    docker("network", "disconnect", "blue", "net-both")
    assert not both.reaches(there)
    assert not both.resolves("net-b")
    docker("network", "connect", "blue", "net-both")
    assert both.reaches(there)
    assert both.resolves("net-b")


def test_search_domains_reverse_and_negative_answers(docker: DockerCli, name: str) -> None:
    docker("network", "create", "--subnet", "10.93.0.0/24", "names")
    try:
        docker("run", "-d", "--name", "db.corp.test", "--network", "names", "--ip", "10.93.0.99",
               "busybox", "sleep", "1000")  # fmt: skip
        run = ("run", "--rm", "--network", "names", "--dns-search", "corp.test")
        assert "10.93.0.99" in docker.out(*run, "busybox", "ping", "-c1", "-W2", "db")
        shown = docker.out(*run, "--dns-option", "ndots:2", "busybox", "cat", "/etc/resolv.conf")
        assert "nameserver 127.0.0.11" in shown
        assert "search corp.test" in shown
        assert "ndots:2" in shown
        assert "db.corp.test.names" in docker.out(*run, "busybox", "nslookup", "10.93.0.99")
        missing = docker(*run, "busybox", "nslookup", "absent.corp.test", status=None)
        assert "NXDOMAIN" in missing.stdout or "SERVFAIL" in missing.stdout
        itself = ("run", "--rm", "--network", "names", "--dns", "127.0.0.11", "busybox")
        assert "SERVFAIL" in docker(*itself, "nslookup", "docker.com", status=1).stdout
        sysctl = "net.ipv4.conf.ifname.forwarding=0"
        option = f'"driver-opt=com.docker.network.endpoint.sysctls={sysctl}"'
        shown = docker.out(
            *("run", "--rm", "--network", f"name=names,{option}", "busybox"),
            *("sysctl", "-n", "net.ipv4.conf.eth0.forwarding"),
        )
        assert shown == "0"
    finally:
        docker("rm", "-f", "db.corp.test")
        docker("network", "rm", "names")


def test_published_ports(docker: DockerCli, sampand: Sampand, eventually: Eventually) -> None:
    """Ranges, protocols, families and conflicts; neighbours come back in by the host's address."""
    docker("network", "create", "--subnet", "10.94.0.0/24", "ports")
    run = ("run", "-d", "--network", "ports")
    serve = ("busybox", "httpd", "-f", "-p", "81", "-h", "/etc")
    try:
        docker(*run, "--name", "ports-a", "-p", "127.0.0.1:18100-18102:80-82", "-p", "18103:83/udp",
               "-p", "18104:84/sctp", "-p", "[::]:18105:81", "-p", "81", *serve)  # fmt: skip
        shown = docker.out("port", "ports-a").splitlines()
        assert {
            "80/tcp -> 127.0.0.1:18100", "82/tcp -> 127.0.0.1:18102", "83/udp -> 0.0.0.0:18103",
            "84/sctp -> 0.0.0.0:18104", "81/tcp -> [::]:18105",
        } <= set(shown)  # fmt: skip
        ephemeral = docker.out("port", "ports-a", "81").splitlines()
        known = ("127.0.0.1:18101", "[::]:18105")
        chosen = int(next(a for a in ephemeral if a not in known).rpartition(":")[2])
        for address, port in (("127.0.0.1", 18101), ("::1", 18105), ("127.0.0.1", chosen)):
            eventually(lambda address=address, port=port: _serves(sampand, address, port))
        taken = docker(*run, "--name", "ports-b", "-p", "18103:1/udp", *serve, status=125)
        assert "port is already allocated" in taken.stderr
        assert "ports-a" in taken.stderr
        docker("exec", "ports-a", "wget", "-qO-", f"http://10.94.0.1:{chosen}/hostname")
        sampand.restart(signal.SIGKILL)
        assert _serves(sampand, "::1", 18105)
        assert _serves(sampand, "127.0.0.1", chosen)
    finally:
        docker("rm", "-f", "ports-a", "ports-b", status=None)
        docker("network", "rm", "ports")


def _serves(daemon: Sampand, host: str, port: int) -> bool:
    """Whether a web server answers at (host, port) inside the daemon's network namespace."""
    namespace = netns.open_path(f"/run/netns/{daemon.namespace}")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with netns.open_socket(namespace, family, socket.SOCK_STREAM) as sock:
            sock.settimeout(5)
            sock.connect((host, port))
            sock.sendall(b"GET /hostname HTTP/1.0\r\n\r\n")
            return sock.recv(100).startswith(b"HTTP/1.")
    except OSError:
        return False
    finally:
        os.close(namespace)


def test_what_a_prune_takes(docker: DockerCli, docker20: DockerCli) -> None:
    """Anonymous volumes alone, unless asked for all; before API 1.42 always all."""
    label = ("--label", "prunes=1")
    prune = ("volume", "prune", "-f", "--filter", "label=prunes=1")
    docker("volume", "create", *label, "prune-named")
    anonymous = docker.out("volume", "create", *label)
    docker("volume", "create", *label, "-o", "type=tmpfs", "-o", "device=tmpfs", "prune-opts")
    docker("run", "-d", "--name", "prune-user", "-v", "prune-held:/v", "busybox", "sleep", "1000")
    listed = ("volume", "ls", "-q", "--filter", "label=prunes=1")
    try:
        assert anonymous in docker.out(*prune)
        assert docker.out(*listed).split() == ["prune-named", "prune-opts"]
        assert "prune-named" in docker20.out(*prune)
        docker("volume", "create", *label, "prune-named")
        assert "prune-named" in docker.out(*prune, "-a")
        assert docker.out(*listed) == "prune-opts"
        docker("volume", "prune", "-af", "--filter", "label!=prunes")
        assert "prune-held" in docker.out("volume", "ls", "-q")
        dangling = docker.out("volume", "ls", "-q", "--filter", "dangling=true")
        assert "prune-held" not in dangling.split()
        assert docker("volume", "rm", "prune-held", status=1).stderr.count("volume is in use") == 1
    finally:
        docker("rm", "-f", "prune-user")
        docker("volume", "rm", "prune-opts", "prune-held")


@pytest.fixture(scope="module")
def plugged(namespace: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sampand]:
    """A daemon with the tests' plugin ``other`` beside it in its network namespace."""
    root = tmp_path_factory.mktemp("plugged")
    for name in ("cli", "plugins", "served"):
        (root / name).mkdir()
    (root / "daemon.json").write_text(
        json.dumps({"default-network-opts": {"bridge": {MTU: "1234", ICC: "false"}}})
    )
    (root / "plugins" / "other.spec").write_text(f"unix://{root}/elsewhere.sock\n")
    flags = [f"--plugin-dir={root}/plugins", "--bridge=none"]
    daemon = Sampand(root, namespace, flags=flags)
    with subprocess.Popen(
        ["nsenter", f"--net=/run/netns/{namespace}", sys.executable, "-m", "tests.pluginserver",
         f"{root}/elsewhere.sock", f"{root}/served"],
        cwd=REPOSITORY, stdout=subprocess.PIPE,
    ) as plugin:  # fmt: skip
        assert plugin.stdout is not None
        assert plugin.stdout.readline() == b"ready\n"
        try:
            daemon.start()
            (root / "b.tar").write_bytes(busybox_archive())
            DockerCli(CLI, daemon.host, root / "cli")("load", "-i", str(root / "b.tar"))
            yield daemon
        finally:
            plugin.kill()
            if daemon.process is not None:
                daemon.stop()


def test_plugins(plugged: Sampand) -> None:
    docker = DockerCli(CLI, plugged.host, plugged.root / "cli")
    assert docker.out("volume", "create", "-d", "other", "-o", "size=1", "data") == "data"
    assert docker.out("volume", "ls").splitlines()[1].split() == ["other", "data"]
    shown = json.loads(docker.out("volume", "inspect", "data"))[0]
    assert (shown["Driver"], shown["Scope"], shown["Status"]) == (
        "other", "global", {"served": "here"},
    )  # fmt: skip
    docker("run", "--rm", "-v", "data:/v", "busybox", "sh", "-c", "echo kept >/v/f")
    mount = "type=volume,src=made,dst=/v,volume-driver=other"
    docker("run", "--rm", "--mount", mount, "busybox", "touch", "/v/g")
    assert (plugged.root / "served/volumes/data/f").read_text() == "kept\n"
    assert "not this one" in docker("volume", "create", "-d", "other", "refused", status=1).stderr
    docker("volume", "rm", "data", "made")
    docker("network", "create", "-d", "other", "--ipam-driver", "other", "far")
    docker("run", "-d", "--name", "one", "--network", "far", "busybox", "sleep", "1000")
    assert docker("run", "--rm", "--network", "far", "busybox", "ping", "-c1", "-W2", "one")
    docker("rm", "-f", "one")
    docker("network", "rm", "far")
    missing = docker("network", "create", "-d", "nope", "x", status=1)
    assert 'plugin "nope" not found' in missing.stderr
    calls = (plugged.root / "served" / "calls").read_text()
    assert calls.count("IpamDriver.RequestAddress") == calls.count("IpamDriver.ReleaseAddress")
    assert calls.count("VolumeDriver.Mount") == calls.count("VolumeDriver.Unmount")


def test_default_options_of_networks(plugged: Sampand) -> None:
    docker = DockerCli(CLI, plugged.host, plugged.root / "cli")

    def options(name: str, *arguments: str) -> object:
        docker("network", "create", *arguments, name)
        shown = docker.out("network", "inspect", "-f", "{{json .Options}}", name)
        return json.loads(shown)

    assert options("plain") == {MTU: "1234", ICC: "false"}
    assert options("said", "-o", f"{MTU}=1300", "-o", "x=y") == {
        MTU: "1300",
        ICC: "false",
        "x": "y",
    }
    assert options("other", "-d", "other") == {}
    assert options("far", "--config-only", "-d", "bridge", "-o", "x=y")
    assert options("near", "--config-from", "far") == {MTU: "1234", ICC: "false", "x": "y"}
    for name, mtu in (("plain", 1234), ("said", 1300)):
        shown = docker.out(
            "run", "--rm", "--network", name, "busybox", "ip", "link", "show", "eth0"
        )
        assert f"mtu {mtu} " in shown
    docker("network", "rm", "near", "far", "other", "said", "plain")


def test_what_is_wrong_is_told_when_it_is_asked_for(docker: DockerCli, name: str) -> None:
    """As by dockerd: at create, with no container left; and what has no effect is warned of."""
    network = f"{name}-net"
    refused = docker("network", "create", "--subnet=10.213.7.9/24", network, status=1)
    assert "invalid subnet 10.213.7.9/24: it should be 10.213.7.0/24" in refused.stderr
    ranged = ("--subnet=10.213.7.0/24", "--ip-range=10.213.7.9/28")
    refused = docker("network", "create", *ranged, network, status=1)
    assert "invalid ip-range 10.213.7.9/28: it should be 10.213.7.0/28" in refused.stderr
    docker("network", "create", "--subnet=10.213.7.0/24", network)
    try:
        for where, address in ((network, "10.213.8.1"), ("bridge", "172.17.0.99")):
            run = ("run", "-d", "--name", name, "--network", where, "--ip", address)
            refused = docker(*run, "busybox", "true", status=125)
            assert f"invalid config for network {where}: invalid endpoint" in refused.stderr
            assert docker.out("ps", "-aq", "--filter", f"name={name}") == ""
    finally:
        docker("network", "rm", network)
    created = docker("create", "--name", name, "--network=host", "-p", "80:80", "busybox")
    assert "Published ports are discarded when using host network mode" in created.stderr


def test_interfaces_are_numbered_from_the_modes_network(docker: DockerCli, name: str) -> None:
    """Also after a reconnection, and past one whose name is the user's."""
    first, second = f"{name}-1", f"{name}-2"
    docker("network", "create", "--subnet=10.213.9.0/24", first)
    docker("network", "create", "--subnet=10.213.10.0/24", second)

    def interfaces() -> list[str]:
        lines = docker.out("exec", name, "ip", "-o", "-4", "addr").splitlines()
        return [" ".join(line.split()[1:4:2]) for line in lines if " lo " not in line]

    try:
        named = "driver-opt=com.docker.network.endpoint.ifname=own0"
        docker(
            *("run", "-d", "--name", name, "--network", f"name={first},{named}"),
            *("--network", f"name={second}", "busybox", "sleep", "1000"),
        )
        assert interfaces() == ["own0 10.213.9.2/24", "eth0 10.213.10.2/24"]
        docker("network", "disconnect", first, name)
        docker("network", "connect", first, name)
        docker("restart", "-t0", name)
        assert interfaces() == ["eth0 10.213.9.2/24", "eth1 10.213.10.2/24"]
    finally:
        docker("rm", "-f", name, status=None)
        docker("network", "rm", first, second, status=None)


def test_a_link_tells_of_no_paths(docker: DockerCli, name: str) -> None:
    docker("run", "-d", "--name", name, "-e", "FOO=1", "-e", "HOME=/x", "busybox", "sleep", "1000")
    told = docker.out("run", "--rm", "--link", f"{name}:db", "busybox", "env").splitlines()
    assert [line for line in told if line.startswith("DB_ENV_")] == ["DB_ENV_FOO=1"]


def test_a_port_of_a_container_without_ipv6(
    docker: DockerCli, sampand: Sampand, eventually: Eventually, name: str
) -> None:
    """``localhost`` is ``::1`` to many programs: both are served, and both are told of."""
    serve = ("busybox", "httpd", "-f", "-p", "81", "-h", "/etc")
    docker("run", "-d", "--name", name, "-p", "18461:81", *serve)
    assert docker.out("port", name) == "81/tcp -> 0.0.0.0:18461\n81/tcp -> [::]:18461"
    for address in ("127.0.0.1", "::1"):
        eventually(lambda address=address: _serves(sampand, address, 18461))
    sampand.restart(signal.SIGKILL)
    assert _serves(sampand, "::1", 18461)


def test_mounts_of_images_are_read_only(docker: DockerCli) -> None:
    mount = "type=image,src=busybox,dst=/image"
    refused = docker("run", "--rm", "--mount", mount, "busybox", "touch", "/image/x", status=1)
    assert "Read-only file system" in refused.stderr
