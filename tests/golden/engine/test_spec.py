"""Create requests -> OCI specs, compared with files; ``SAMPAN_GOLDEN=write`` rewrites them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import msgspec
import pytest

from sampan.engine import completion, mountspec
from sampan.engine.config import EngineConfig
from sampan.engine.hostdevices import DeviceNode
from sampan.engine.merge import command_line
from sampan.engine.record import Record
from sampan.engine.security import parse_security_options
from sampan.engine.spec import Host, Resolved, runtime_spec
from sampan.errors import InvalidParameter, SampanError
from sampan.wire.container import ContainerCreateRequest, HostConfig, ImageConfig

HERE = Path(__file__).parent
ID = "0123456789abcdef" * 4
IMAGE = ImageConfig(
    env=["PATH=/usr/bin:/bin", "LANG=C.UTF-8"],
    cmd=["bash"],
    working_dir="/srv",
    exposed_ports={"80/tcp": {}},
    volumes={"/data": {}},
    stop_signal="SIGQUIT",
)


class Devices:
    """Two block devices and a directory of character devices."""

    table = (
        DeviceNode(path="/dev/sda", kind="b", major=8, minor=0, mode=0o660, uid=0, gid=6),
        DeviceNode(path="/dev/sdb", kind="b", major=8, minor=16, mode=0o660, uid=0, gid=6),
        DeviceNode(path="/dev/snd/pcm", kind="c", major=116, minor=2, mode=0o660, uid=0, gid=29),
        DeviceNode(path="/dev/snd/timer", kind="c", major=116, minor=33, mode=0o660, uid=0, gid=29),
    )

    def node(self, path: str) -> DeviceNode:
        for node in self.table:
            if node.path == path:
                return node
        raise InvalidParameter(f"no device {path}")

    def nodes(self, path: str) -> list[DeviceNode]:
        below = [node for node in self.table if node.path.startswith(f"{path}/")]
        return below or [self.node(path)]

    def all(self) -> list[DeviceNode]:
        return list(self.table)


NEW = {"mount": "", "network": "", "uts": "", "pid": "", "ipc": ""}
CASES: dict[str, tuple[str, dict[str, str]]] = {
    "plain": ('{"Image": "debian"}', NEW),
    "terminal": (
        """{"Image": "debian", "Tty": true, "Cmd": ["top"], "User": "app", "Hostname": "web",
            "Domainname": "example.org", "Env": ["LANG", "A=b"],
            "HostConfig": {"ConsoleSize": [24, 80], "ReadonlyRootfs": true,
            "GroupAdd": ["audio"]}}""",
        NEW,
    ),
    "limits": (
        """{"Image": "debian", "HostConfig": {"Memory": 67108864, "NanoCpus": 1500000000,
            "CpuShares": 512, "CpusetCpus": "0-1", "PidsLimit": 100, "MemoryReservation": 33554432,
            "MemorySwappiness": 10, "OomKillDisable": true, "OomScoreAdj": 500, "ShmSize": 1048576,
            "BlkioWeight": 300, "BlkioDeviceReadBps": [{"Path": "/dev/sda", "Rate": 1048576}],
            "BlkioWeightDevice": [{"Path": "/dev/sdb", "Weight": 200}],
            "Ulimits": [{"Name": "nofile", "Soft": 1024, "Hard": -1}],
            "Sysctls": {"net.core.somaxconn": "128"}}}""",
        NEW,
    ),
    "mounts": (
        """{"Image": "debian", "HostConfig": {"ReadonlyRootfs": true,
            "Binds": ["/srv/a:/a:ro", "cache:/var/cache:nocopy", "/dev:/dev", "/b:/b:rslave"],
            "Tmpfs": {"/run": "size=64k,exec"}, "Mounts": [
            {"Type": "tmpfs", "Target": "/scratch",
             "TmpfsOptions": {"SizeBytes": 4096, "Mode": 448}},
            {"Type": "bind", "Source": "/c", "Target": "/c", "ReadOnly": true,
             "BindOptions": {"NonRecursive": true, "Propagation": "shared"}}]}}""",
        NEW,
    ),
    "privileged": (
        """{"Image": "debian", "HostConfig": {"Privileged": true, "SecurityOpt":
            ["no-new-privileges"], "IpcMode": "none"}}""",
        {**NEW, "cgroup": ""},
    ),
    "hardened": (
        """{"Image": "debian", "HostConfig": {"CapDrop": ["ALL"], "CapAdd": ["net_bind_service"],
            "SecurityOpt": ["no-new-privileges:true", "systempaths=unconfined"],
            "Annotations": {"org.example": "x"},
            "Devices": [{"PathOnHost": "/dev/snd", "PathInContainer": "/dev/snd",
            "CgroupPermissions": "rw"}], "DeviceCgroupRules": ["c 42:* rwm"]}}""",
        NEW,
    ),
    "shared": (
        """{"Image": "debian", "Entrypoint": ["/init"], "HostConfig": {"NetworkMode": "host",
            "PidMode": "host", "IpcMode": "host", "UTSMode": "host"}}""",
        {"mount": ""},
    ),
    "joined": (
        """{"Image": "debian", "Entrypoint": [""], "Cmd": ["sh"],
            "HostConfig": {"NetworkMode": "container:other", "IpcMode": "container:other"}}""",
        {**NEW, "network": "/proc/42/ns/net", "ipc": "/proc/42/ns/ipc"},
    ),
}


def spec_of(body: str, namespaces: dict[str, str]) -> dict[str, object]:
    wanted = msgspec.json.decode(body, type=ContainerCreateRequest)
    config = completion.container_config(wanted, IMAGE, ID, "thehost")
    host = completion.host_config(
        wanted.host_config,
        EngineConfig(),
        cpus=4,
        memory_nodes="0",
        cgroup_v2=False,
        lsm=frozenset(),
    )
    path, args = command_line(config)
    mounts = mountspec.combine(
        [],
        [mountspec.parse_bind(text) for text in host.binds or []],
        [mountspec.parse_mount(mount) for mount in host.mounts or []],
        host.tmpfs or {},
        config.volumes or {},
    )
    placed = [
        msgspec.structs.replace(m, source=m.source or f"/volumes/{m.name or 'anonymous'}/_data")
        for m in mounts
    ]
    record = Record(
        id=ID,
        name="web",
        created=0,
        image="debian",
        image_id="sha256:0",
        path=path,
        args=args,
        config=config,
        host_config=host,
    )
    resolved = Resolved(
        namespaces=namespaces,
        cgroup=f"/sampan/{ID}",
        hostname=config.hostname or "",
        mounts=placed,
        files={"/etc/hosts": "/files/hosts"},
        security=parse_security_options(host.security_opt or []),
    )
    return dict(runtime_spec(record, Host(devices=Devices(), cpus=4), resolved))


@pytest.mark.parametrize("name", CASES)
def test_spec(name: str) -> None:
    body, namespaces = CASES[name]
    found = json.dumps(spec_of(body, namespaces), indent=1, sort_keys=True) + "\n"
    path = HERE / f"{name}.json"
    if os.environ.get("SAMPAN_GOLDEN") == "write":
        path.write_text(found)
    assert found == path.read_text()


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ({"Memory": 1024}, "Minimum memory limit allowed is 6MB"),
        ({"Memory": 67108864, "MemorySwap": 1}, "Minimum memoryswap limit should be larger"),
        ({"MemorySwap": 1}, "You should always set the Memory limit"),
        ({"NanoCpus": 1, "CpuQuota": 5000}, "Nano CPUs and CPU Quota cannot both be set"),
        ({"NanoCpus": 5_000_000_000}, "range of CPUs is from 0.01 to 4.00"),
        ({"CpusetCpus": "7"}, "Requested CPUs are not available - requested 7, available: 0-3"),
        ({"CpusetCpus": "x"}, "Invalid value x for cpuset cpus"),
        ({"CapAdd": ["FLY"]}, 'invalid CapAdd: unknown capability: "CAP_FLY"'),
        ({"RestartPolicy": {"Name": "sometimes"}}, "unknown policy 'sometimes'"),
        (
            {"AutoRemove": True, "RestartPolicy": {"Name": "always"}},
            "can't create 'AutoRemove' container with restart policy",
        ),
        ({"Sysctls": {"kernel.pid_max": "1"}}, "is not in a separate kernel namespace"),
        (
            {"Sysctls": {"net.core.somaxconn": "1"}, "NetworkMode": "host"},
            "not allowed in host network namespace",
        ),
        ({"IpcMode": "public"}, "invalid IPC mode: public"),
        ({"SecurityOpt": ["frob"]}, 'invalid --security-opt 1: "frob"'),
        ({"SecurityOpt": ["label=type:x"]}, "SELinux is not enabled"),
        ({"LogConfig": {"Type": "smoke"}}, "no log driver named 'smoke' is registered"),
        ({"LogConfig": {"Type": "json-file", "Config": {"x": "1"}}}, "unknown log opt 'x'"),
        ({"StorageOpt": {"colour": "1"}}, "Unknown option colour"),
        ({"StorageOpt": {"size": "1 elephant"}}, "invalid size: '1 elephant'"),
        ({"Runtime": "kata"}, "unknown or invalid runtime name: kata"),
        ({"Ulimits": [{"Name": "nofile", "Soft": 5, "Hard": 1}]}, "less than or equal to hard"),
        ({"OomScoreAdj": 2000}, "range for oom score adj is [-1000, 1000]"),
        ({"ExtraHosts": ["nonsense"]}, 'bad format for add-host: "nonsense"'),
        ({"PortBindings": {"80/quic": []}}, 'invalid port specification: "80/quic"'),
    ],
)
def test_refused(host: dict[str, object], message: str) -> None:
    wanted = msgspec.convert(host, HostConfig)
    with pytest.raises(SampanError) as raised:
        completion.host_config(
            wanted, EngineConfig(), cpus=4, memory_nodes="0", cgroup_v2=False, lsm=frozenset()
        )
    assert message in raised.value.message
