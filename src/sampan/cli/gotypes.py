"""The Go structs that ``inspect --format`` sees: fields in order, with their types.

Templates written for Docker depend on them: an absent health check is a nil pointer that ``if``
takes as false, not a missing key; a struct prints as its fields in order; ``{{.ID}}`` is a field
although the JSON says ``Id``. Each field is ``Name:type``, ``Name=JsonName:type`` where the names
differ. Types: ``s`` string, ``i`` number, ``b`` boolean, ``l`` list, ``m`` map,
``t`` map of strings, ``any``, ``*T``
pointer, ``T`` struct, ``[]T`` list of structs, ``{}T`` map of structs; ``*s`` and so on are
pointers to scalars.
"""

from __future__ import annotations

from sampan.cli.gotemplate.values import (
    NIL,
    Duration,
    NilList,
    NilMap,
    Record,
    TypedMap,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from sampan.cli.gotemplate.values import Value
    from sampan.client.document import Document, Json

_CONTAINER = {
    "container.InspectResponse": (
        "ID=Id:s Created:s Path:s Args:l State:*container.State Image:s ResolvConfPath:s "
        "HostnamePath:s HostsPath:s LogPath:s Name:s RestartCount:i Driver:s Platform:s "
        "MountLabel:s ProcessLabel:s AppArmorProfile:s ExecIDs:l HostConfig:*container.HostConfig "
        "GraphDriver:*storage.DriverData SizeRw:*i? SizeRootFs:*i? Mounts:[]container.MountPoint "
        "Config:*container.Config NetworkSettings:*container.NetworkSettings "
        "ImageManifestDescriptor:any?"
    ),
    "container.State": (
        "Status:s Running:b Paused:b Restarting:b OOMKilled:b Dead:b Pid:i ExitCode:i Error:s "
        "StartedAt:s FinishedAt:s Health:*container.Health?"
    ),
    "container.Health": "Status:s FailingStreak:i Log:[]container.HealthcheckResult",
    "container.HealthcheckResult": "Start:s End:s ExitCode:i Output:s",
    "storage.DriverData": "Data:t Name:s",
    "container.MountPoint": (
        "Type:s? Name:s? Source:s Destination:s Driver:s? Mode:s RW:b Propagation:s"
    ),
    "container.Config": (
        "Hostname:s Domainname:s User:s AttachStdin:b AttachStdout:b AttachStderr:b "
        "ExposedPorts:m? Tty:b OpenStdin:b StdinOnce:b Env:l Cmd:l "
        "Healthcheck:*container.HealthConfig? ArgsEscaped:b? Image:s Volumes:m WorkingDir:s "
        "Entrypoint:l NetworkDisabled:b? MacAddress:s? OnBuild:l Labels:t StopSignal:s? "
        "StopTimeout:*i? Shell:l?"
    ),
    "container.HealthConfig": (
        "Test:l? Interval:d? Timeout:d? StartPeriod:d? StartInterval:d? Retries:i?"
    ),
    "container.HostConfig": (
        "Binds:l ContainerIDFile:s LogConfig:container.LogConfig NetworkMode:s "
        "PortBindings:{}[]nat.PortBinding RestartPolicy:container.RestartPolicy AutoRemove:b "
        "VolumeDriver:s VolumesFrom:l ConsoleSize:l Annotations:t? CapAdd:l CapDrop:l "
        "CgroupnsMode:s DNS=Dns:l DNSOptions=DnsOptions:l DNSSearch=DnsSearch:l ExtraHosts:l "
        "GroupAdd:l IpcMode:s Cgroup:s Links:l OomScoreAdj:i PidMode:s Privileged:b "
        "PublishAllPorts:b ReadonlyRootfs:b SecurityOpt:l StorageOpt:t? Tmpfs:t? UTSMode:s "
        "UsernsMode:s ShmSize:i Sysctls:t? Runtime:s? Isolation:s CPUShares=CpuShares:i Memory:i "
        "NanoCPUs=NanoCpus:i CgroupParent:s BlkioWeight:i BlkioWeightDevice:l "
        "BlkioDeviceReadBps:l BlkioDeviceWriteBps:l BlkioDeviceReadIOps:l BlkioDeviceWriteIOps:l "
        "CPUPeriod=CpuPeriod:i CPUQuota=CpuQuota:i CPURealtimePeriod=CpuRealtimePeriod:i "
        "CPURealtimeRuntime=CpuRealtimeRuntime:i CpusetCpus:s CpusetMems:s "
        "Devices:[]container.DeviceMapping DeviceCgroupRules:l DeviceRequests:l KernelMemory:i? "
        "KernelMemoryTCP:i? MemoryReservation:i MemorySwap:i MemorySwappiness:*i OomKillDisable:*b "
        "PidsLimit:*i Ulimits:l CPUCount=CpuCount:i CPUPercent=CpuPercent:i IOMaximumIOps:i "
        "IOMaximumBandwidth:i Mounts:l? MaskedPaths:l ReadonlyPaths:l Init:*b?"
    ),
    "container.LogConfig": "Type:s Config:t",
    "container.RestartPolicy": "Name:s MaximumRetryCount:i",
    "container.DeviceMapping": "PathOnHost:s PathInContainer:s CgroupPermissions:s",
    "nat.PortBinding": "HostIP=HostIp:s HostPort:s",
    "container.NetworkSettings": (
        "Bridge:s SandboxID:s SandboxKey:s Ports:{}[]nat.PortBinding HairpinMode:b "
        "LinkLocalIPv6Address:s LinkLocalIPv6PrefixLen:i SecondaryIPAddresses:l "
        "SecondaryIPv6Addresses:l EndpointID:s Gateway:s GlobalIPv6Address:s "
        "GlobalIPv6PrefixLen:i IPAddress:s IPPrefixLen:i IPv6Gateway:s MacAddress:s "
        "Networks:{}network.EndpointSettings"
    ),
}
_NETWORK = {
    "network.EndpointSettings": (
        "IPAMConfig:*network.EndpointIPAMConfig Links:l Aliases:l MacAddress:s DriverOpts:t "
        "GwPriority:i NetworkID:s EndpointID:s Gateway:s IPAddress:s IPPrefixLen:i IPv6Gateway:s "
        "GlobalIPv6Address:s GlobalIPv6PrefixLen:i DNSNames:l"
    ),
    "network.EndpointIPAMConfig": "IPv4Address:s? IPv6Address:s? LinkLocalIPs:l?",
    "network.Inspect": (
        "Name:s ID=Id:s Created:s Scope:s Driver:s EnableIPv4:b EnableIPv6:b IPAM:network.IPAM "
        "Internal:b Attachable:b Ingress:b ConfigFrom:network.ConfigReference ConfigOnly:b "
        "Containers:{}network.EndpointResource Options:t Labels:t Peers:l? Services:m?"
    ),
    "network.IPAM": "Driver:s Options:t Config:[]network.IPAMConfig",
    "network.IPAMConfig": "Subnet:s? IPRange:s? Gateway:s? AuxAddress=AuxiliaryAddresses:t?",
    "network.ConfigReference": "Network:s",
    "network.EndpointResource": ("Name:s EndpointID:s MacAddress:s IPv4Address:s IPv6Address:s"),
}
_OTHER = {
    "image.InspectResponse": (
        "ID=Id:s RepoTags:l RepoDigests:l Parent:s Comment:s Created:s DockerVersion:s Author:s "
        "Config:*image.Config Architecture:s Variant:s? Os:s OsVersion:s? Size:i VirtualSize:i? "
        "GraphDriver:storage.DriverData RootFS:image.RootFS Metadata:image.Metadata "
        "Descriptor:any? Manifests:l?"
    ),
    "image.Config": (
        "User:s? ExposedPorts:m? Env:l? Entrypoint:l? Cmd:l? Volumes:m? WorkingDir:s? Labels:t? "
        "StopSignal:s? ArgsEscaped:b? Healthcheck:*container.HealthConfig? OnBuild:l? Shell:l?"
    ),
    "image.RootFS": "Type:s Layers:l?",
    "image.Metadata": "LastTagTime:s?",
    "volume.Volume": (
        "ClusterVolume:any? CreatedAt:s? Driver:s Labels:t Mountpoint:s Name:s Options:t Scope:s "
        "Status:m? UsageData:*volume.UsageData?"
    ),
    "volume.UsageData": "RefCount:i Size:i",
    "system.versionInfo": "Client:system.clientVersion Server:*types.Version",
    "system.clientVersion": (
        "Platform:any? Version:s APIVersion=ApiVersion:s DefaultAPIVersion:s? GitCommit:s "
        "GoVersion:s Os:s Arch:s BuildTime:s? Context:s"
    ),
    "types.Version": (
        "Platform:types.Platform Components:[]types.ComponentVersion? Version:s "
        "APIVersion=ApiVersion:s MinAPIVersion:s? GitCommit:s GoVersion:s Os:s Arch:s "
        "KernelVersion:s? Experimental:b? BuildTime:s?"
    ),
    "types.Platform": "Name:s",
    "types.ComponentVersion": "Name:s Version:s Details:t?",
    "events.Message": (
        "Status=status:s? ID=id:s? From=from:s? Type:s Action:s Actor:events.Actor Scope=scope:s? "
        "Time=time:i? TimeNano=timeNano:i?"
    ),
    "events.Actor": "ID:s Attributes:t",
}
_TYPES = {**_CONTAINER, **_NETWORK, **_OTHER}
_ZERO: dict[str, Value] = {"s": "", "i": 0, "b": False}


class Typed(Record):
    """A JSON object seen as a Go struct."""

    def __init__(self, name: str, document: Document) -> None:
        self.type_name = name
        self._document = document
        self._fields: dict[str, tuple[str, str]] = {}
        self._optional: set[str] = set()
        for field in _TYPES[name].split():
            names, _colon, kind = field.partition(":")
            go_name, equals, json_name = names.partition("=")
            json_name = json_name if equals else go_name
            self._fields[go_name] = (json_name, kind.removesuffix("?"))
            if kind.endswith("?"):
                self._optional.add(json_name)

    def member(self, name: str) -> Value:
        """A field. Raises ``KeyError``."""
        json_name, kind = self._fields[name]
        return typed(kind, self._document.get(json_name))

    def members(self) -> Iterable[tuple[str, Value]]:
        """The fields in the struct's order, under their JSON names."""
        return [
            (json_name, typed(kind, self._document.get(json_name)))
            for json_name, kind in self._fields.values()
        ]

    def json_members(self) -> Iterable[tuple[str, Value]]:
        """The fields JSON has: those it leaves out when zero only when they are not."""
        return [
            (name, value)
            for name, value in self.members()
            if name not in self._optional or self._document.get(name)
        ]


def typed(kind: str, value: Json) -> Value:
    """A JSON value as the Go type ``kind`` holds it; an absent one is the type's zero value."""
    if kind.startswith("*"):
        return NIL if value is None else typed(kind[1:], value)
    if kind.startswith("[]"):
        if not isinstance(value, list):
            return NilList()
        return [typed(kind[2:], item) for item in value]
    if kind.startswith("{}"):
        if not isinstance(value, dict):
            return NilMap()
        return {key: typed(kind[2:], item) for key, item in value.items()}
    if kind in _TYPES:
        return Typed(kind, value if isinstance(value, dict) else {})
    if kind == "l":
        return plain(value) if isinstance(value, list) else NilList()
    if kind == "m":
        return plain(value) if isinstance(value, dict) else NilMap()
    if kind == "t":
        if not isinstance(value, dict):
            return NilMap.of("")
        return TypedMap.of("", [(key, plain(item)) for key, item in value.items()])
    if kind == "d":
        return Duration(value) if isinstance(value, int) else Duration(0)
    return _ZERO.get(kind, NIL) if value is None else plain(value)


def plain(value: Json) -> Value:
    """A JSON value as a template value."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value
