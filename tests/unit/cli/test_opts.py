"""The small languages of option values. Error texts are docker's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sampan.cli.commands.run import RUN
from sampan.cli.container_spec import container_spec
from sampan.cli.fault import CliError
from sampan.cli.flags import FlagParser
from sampan.cli.opts import devices, hosts, mounts, network, ports, security, variables, volumes

if TYPE_CHECKING:
    from sampan.client.document import Document


@pytest.mark.parametrize(
    ("text", "published"),
    [
        ("80", [("80/tcp", "", "")]),
        ("8080:80", [("80/tcp", "", "8080")]),
        ("127.0.0.1:8080:80/udp", [("80/udp", "127.0.0.1", "8080")]),
        ("[::1]:8080:80", [("80/tcp", "::1", "8080")]),
        ("127.0.0.1::80", [("80/tcp", "127.0.0.1", "")]),
        ("80-81:90-91", [("90/tcp", "", "80"), ("91/tcp", "", "81")]),
        ("8000-8010:80", [("80/tcp", "", "8000-8010")]),
        ("80-81/sctp", [("80/sctp", "", ""), ("81/sctp", "", "")]),
        ("target=80,published=8080,protocol=udp", [("80/udp", "", "8080")]),
    ],
)
def test_publish(text: str, published: list[tuple[str, str, str]]) -> None:
    assert [tuple(item) for item in ports.parse_publish(text)] == published


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no port specified: <empty>"),
        ("x:80", "invalid hostPort: x"),
        ("80/x", "invalid proto: x"),
        ("80-70", "invalid containerPort: 80-70"),
        ("1.2.3:80:80", "invalid IP address: 1.2.3"),
        ("80-81:90-92", "invalid ranges specified for container and host Ports: 90-92 and 80-81"),
        ("published=80", "missing mandatory field 'target' in published=80"),
        ("target=80,x=y", "invalid field key: x"),
    ],
)
def test_bad_publish(text: str, message: str) -> None:
    with pytest.raises(CliError) as caught:
        ports.parse_publish(text)
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("type=bind,src=/a,dst=/b,ro", {"Type": "bind", "Source": "/a", "Target": "/b",
                                        "ReadOnly": True}),
        ("target=/v", {"Type": "volume", "Target": "/v"}),
        ("type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1770",
         {"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 1 << 20, "Mode": 0o1770}}),
        ("source=v,target=/v,volume-nocopy,volume-label=a=b,volume-driver=d,volume-opt=o=1,"
         "volume-subpath=s",
         {"Type": "volume", "Source": "v", "Target": "/v", "VolumeOptions": {
             "NoCopy": True, "Subpath": "s", "Labels": {"a": "b"},
             "DriverConfig": {"Name": "d", "Options": {"o": "1"}}}}),
        ("type=bind,src=/a,dst=/b,bind-propagation=rshared,bind-recursive=disabled,bind-create-src",
         {"Type": "bind", "Source": "/a", "Target": "/b", "BindOptions": {
             "Propagation": "rshared", "NonRecursive": True, "CreateMountpoint": True}}),
        ("type=image,src=i,dst=/i,image-subpath=s",
         {"Type": "image", "Source": "i", "Target": "/i", "ImageOptions": {"Subpath": "s"}}),
        ('type=bind,"src=/a,b",dst=/c', {"Type": "bind", "Source": "/a,b", "Target": "/c"}),
    ],
)  # fmt: skip
def test_mounts(text: str, mount: Document) -> None:
    assert mounts.parse_mount(text) == mount


@pytest.mark.parametrize(
    ("text", "attachment"),
    [
        ("net", network.Attachment("net")),
        ("container:x", network.Attachment("container:x")),
        ("name=n,alias=a,alias=b,ip=10.0.0.2,ip6=fd00::2,mac-address=02:00:00:00:00:01,"
         "link-local-ip=169.254.1.1,driver-opt=k=v,gw-priority=-3",
         network.Attachment("n", ("a", "b"), (), "10.0.0.2", "fd00::2", ("169.254.1.1",),
                            "02:00:00:00:00:01", (("k", "v"),), -3)),
    ],
)  # fmt: skip
def test_networks(text: str, attachment: network.Attachment) -> None:
    assert network.parse_network(text) == attachment


def test_endpoints() -> None:
    mode, settings = network.endpoints([], network.EndpointFlags())
    assert (mode, settings) == ("default", {})
    flags = network.EndpointFlags(aliases=("x",), ip="10.0.0.2", links=("db:db",))
    mode, settings = network.endpoints([network.Attachment("n"), network.Attachment("m")], flags)
    assert mode == "n"
    assert settings == {
        "n": {"IPAMConfig": {"IPv4Address": "10.0.0.2"}, "Aliases": ["x"], "Links": ["db:db"]},
        "m": {},
    }


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (devices.parse_gpus, "all", {"Count": -1, "Capabilities": [["gpu"]], "Options": {}}),
        (devices.parse_gpus, '"device=0,1",capabilities=utility',
         {"DeviceIDs": ["0", "1"], "Capabilities": [["gpu", "utility"]], "Options": {}}),
        (devices.parse_ulimit, "nofile=1:2", {"Name": "nofile", "Soft": 1, "Hard": 2}),
        (devices.parse_ulimit, "core=-1", {"Name": "core", "Soft": -1, "Hard": -1}),
        (devices.parse_bps, "/dev/sda:1mb", {"Path": "/dev/sda", "Rate": 1 << 20}),
        (devices.parse_device, "/dev/x:/dev/y:rw",
         {"PathOnHost": "/dev/x", "PathInContainer": "/dev/y", "CgroupPermissions": "rw"}),
        (devices.parse_device, "/dev/x:r",
         {"PathOnHost": "/dev/x", "PathInContainer": "/dev/x", "CgroupPermissions": "r"}),
        (devices.is_cdi_name, "vendor.com/class=name", True),
        (devices.is_cdi_name, "/dev/x", False),
        (hosts.parse_extra_host, "a=::1", "a:::1"),
        (hosts.parse_extra_host, "a:[::1]", "a:::1"),
        (hosts.parse_extra_host, "a:host-gateway", "a:host-gateway"),
        (hosts.parse_restart, "on-failure:3", {"Name": "on-failure", "MaximumRetryCount": 3}),
        (hosts.parse_dns_search, ".", "."),
        (volumes.parse_tmpfs, ["/a:size=1m", "/b"], {"/a": "size=1m", "/b": ""}),
    ],
)  # fmt: skip
def test_other_values(parse: Callable[[object], object], text: object, value: object) -> None:
    assert parse(text) == value


def test_files_of_variables(tmp_path: Path) -> None:
    path = tmp_path / "env"
    path.write_bytes(b"\xef\xbb\xbf# note\nA=1\r\n  B = x\n")
    with pytest.raises(CliError, match="variable 'B ' contains whitespaces"):
        variables.read_file(str(path), {})
    path.write_text("A=1\nB=a=b\nC\nD\n#x\n")
    assert variables.read_file(str(path), {"C": "3"}) == ["A=1", "B=a=b", "C=3"]
    assert variables.read_labels([str(path)], ["A=2"]) == {"A": "2", "B": "a=b", "C": "", "D": ""}
    path.write_bytes(b"A=\xff\n")
    with pytest.raises(CliError, match="invalid utf8"):
        variables.read_file(str(path), {})


def test_seccomp_profiles_are_read_here(tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    path.write_text('{ "defaultAction" : "SCMP_ACT_ALLOW" }')
    options, unmasked = security.parse_security(
        [f"seccomp={path}", "no-new-privileges", "systempaths=unconfined", "apparmor=x"]
    )
    assert options == [
        'seccomp={"defaultAction":"SCMP_ACT_ALLOW"}', "no-new-privileges", "apparmor=x",
    ]  # fmt: skip
    assert unmasked


def test_the_whole_request() -> None:
    words = [
        "-it",
        "--rm",
        "--name",
        "n",
        "-h",
        "box",
        "-u",
        "1:2",
        "-w",
        "/w",
        "-e",
        "A=1",
        "-e",
        "HOME",
        "-l",
        "x=y",
        "-p",
        "80:80",
        "-P",
        "--expose",
        "90",
        "-v",
        "v:/v",
        "-v",
        "/anon",
        "--tmpfs",
        "/t:size=1m",
        "-m",
        "64m",
        "--memory-swap",
        "-1",
        "--cpus",
        "1.5",
        "--pids-limit",
        "10",
        "--cap-add",
        "NET_ADMIN",
        "--read-only",
        "--init",
        "--network",
        "net",
        "--network-alias",
        "al",
        "--dns",
        "1.1.1.1",
        "--security-opt",
        "systempaths=unconfined",
        "--log-driver",
        "json-file",
        "--log-opt",
        "max-size=1m",
        "--health-cmd",
        "true",
        "--health-interval",
        "5s",
        "--stop-timeout",
        "3",
        "--entrypoint",
        "/e",
        "--health-on-failure",
        "kill",
        "image",
        "cmd",
        "-x",
    ]
    arguments = FlagParser(RUN.flags, interspersed=False, warn=print).parse(words)
    spec = container_spec(arguments, {"HOME": "/h"})
    body = spec.body()
    assert body["Env"] == ["A=1", "HOME=/h"]
    assert body["Cmd"] == ["cmd", "-x"]
    assert body["Entrypoint"] == ["/e"]
    assert body["Labels"] == {"x": "y", "sampan.health.on-failure": "kill"}
    assert (body["Tty"], body["OpenStdin"], body["StdinOnce"]) == (True, True, True)
    assert body["Volumes"] == {"/anon": {}}
    assert body["ExposedPorts"] == {"80/tcp": {}, "90/tcp": {}}
    assert body["Healthcheck"] == {"Test": ["CMD-SHELL", "true"], "Interval": 5 * 10**9}
    host = spec.host
    assert host["Binds"] == ["v:/v"]
    assert host["PortBindings"] == {"80/tcp": [{"HostIp": "", "HostPort": "80"}]}
    assert (host["Memory"], host["MemorySwap"], host["NanoCpus"]) == (64 << 20, -1, 15 * 10**8)
    assert (host["MaskedPaths"], host["ReadonlyPaths"], host["Init"]) == ([], [], True)
    assert host["NetworkMode"] == "net"
    assert spec.network == {"net": {"Aliases": ["al"]}}
    assert "MemorySwappiness" not in host
