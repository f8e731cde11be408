"""Answers as Go's encoding/json would write them: fields that are never left out.

Our structs leave an absent field out; dockerd writes its zero value unless the Go field says
``omitempty``, and clients index such fields without looking (docker-py: ``attrs["Config"]
["Entrypoint"]``). The tables below say which fields those are (moby api/types, API v1.55).
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from functools import cache
from typing import Any, cast, get_args, get_origin

import msgspec

from sampan.wire import container, exec, image, network, stats, system, volume


class _Omit:
    """The mark of a field that is left out when absent."""


_OMIT = _Omit()


def _zero(value: object, names: str) -> dict[str, object]:
    return dict.fromkeys(names.split(), value)


_CONFIG = {
    **_zero("", "Hostname Domainname User Image WorkingDir"),
    **_zero(False, "AttachStdin AttachStdout AttachStderr Tty OpenStdin StdinOnce"),
    **_zero(None, "Env Cmd Volumes Entrypoint Labels"),
}
_RESOURCES = {
    **_zero(
        0,
        "CpuShares Memory NanoCpus BlkioWeight CpuPeriod CpuQuota CpuRealtimePeriod "
        "CpuRealtimeRuntime MemoryReservation MemorySwap CpuCount CpuPercent IOMaximumIOps "
        "IOMaximumBandwidth",
    ),
    **_zero("", "CgroupParent CpusetCpus CpusetMems"),
    **_zero(
        None,
        "BlkioWeightDevice BlkioDeviceReadBps BlkioDeviceWriteBps BlkioDeviceReadIOps "
        "BlkioDeviceWriteIOps Devices DeviceCgroupRules DeviceRequests MemorySwappiness "
        "OomKillDisable PidsLimit Ulimits",
    ),
}
_HOST_CONFIG = {
    **_RESOURCES,
    **_zero(
        None,
        "Binds VolumesFrom CapAdd CapDrop ExtraHosts GroupAdd Links SecurityOpt MaskedPaths "
        "ReadonlyPaths",
    ),
    **_zero(
        "",
        "ContainerIDFile NetworkMode VolumeDriver CgroupnsMode IpcMode Cgroup PidMode UTSMode "
        "UsernsMode Isolation",
    ),
    **_zero(False, "AutoRemove Privileged PublishAllPorts ReadonlyRootfs"),
    **_zero(None, "Dns DnsOptions DnsSearch"),
    **_zero(0, "OomScoreAdj ShmSize"),
    "PortBindings": {},
    "ConsoleSize": [0, 0],
    "LogConfig": {"Type": "", "Config": {}},
    "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
}
_ENDPOINT = {
    **_zero(None, "IPAMConfig Links Aliases DriverOpts DNSNames"),
    **_zero(
        "",
        "MacAddress NetworkID EndpointID Gateway IPAddress IPv6Gateway GlobalIPv6Address",
    ),
    **_zero(0, "GwPriority IPPrefixLen GlobalIPv6PrefixLen"),
}
_NETWORK = {
    **_zero("", "Name Id Created Scope Driver"),
    **_zero(False, "EnableIPv4 EnableIPv6 Internal Attachable Ingress ConfigOnly"),
    **_zero({}, "Options Labels"),
    "ConfigFrom": {"Network": ""},
    "IPAM": {"Driver": "default", "Options": None, "Config": []},
}
_USAGE = {**_zero(0, "ActiveCount TotalCount Reclaimable TotalSize")}

_PRESENT: dict[type[msgspec.Struct], dict[str, object]] = {
    container.ContainerConfig: _CONFIG,
    container.HostConfig: _HOST_CONFIG,
    container.HostConfigLogConfig: {"Type": "", "Config": {}},
    container.RestartPolicy: {"Name": "", "MaximumRetryCount": 0},
    container.EndpointSettings: _ENDPOINT,
    container.NetworkSettings: {**_zero("", "SandboxID SandboxKey"), **_zero({}, "Ports Networks")},
    container.PortBinding: _zero("", "HostIp HostPort"),
    container.PortSummary: {"PrivatePort": 0, "Type": ""},
    container.MountPoint: {**_zero("", "Source Destination Mode Propagation"), "RW": False},
    container.DriverData: {"Name": "", "Data": None},
    container.ContainerState: {
        **_zero("", "Status Error"),
        **_zero(False, "Running Paused Restarting OOMKilled Dead"),
        **_zero(0, "Pid ExitCode"),
        **_zero("0001-01-01T00:00:00Z", "StartedAt FinishedAt"),
    },
    container.Health: {"Status": "", "FailingStreak": 0, "Log": []},
    container.HealthcheckResult: {**_zero("", "Start End Output"), "ExitCode": 0},
    container.ContainerInspectResponse: {
        **_zero(
            "",
            "Id Created Path Image ResolvConfPath HostnamePath HostsPath LogPath Name Driver "
            "Platform MountLabel ProcessLabel AppArmorProfile",
        ),
        **_zero([], "Args Mounts"),
        "RestartCount": 0,
        "ExecIDs": None,
    },
    container.ContainerSummary: {
        **_zero("", "Id Image ImageID Command State Status"),
        **_zero([], "Names Ports Mounts"),
        "Created": 0,
        "Labels": {},
        "HostConfig": {},
        "NetworkSettings": {"Networks": {}},
    },
    container.ContainerSummaryNetworkSettings: {"Networks": {}},
    container.ContainerSummaryHealth: {"Status": "none", "FailingStreak": 0},
    container.FilesystemChange: {"Path": "", "Kind": 0},
    container.ContainerCreateResponse: {"Id": "", "Warnings": []},
    container.ContainerUpdateResponse: {"Warnings": None},
    container.ContainerTopResponse: {"Titles": [], "Processes": []},
    container.ContainerWaitResponse: {"StatusCode": 0},
    container.ContainersPruneReport: {"ContainersDeleted": None, "SpaceReclaimed": 0},
    container.ContainersDiskUsage: _USAGE,
    exec.ExecInspect: {
        **_zero("", "ID ContainerID DetachKeys"),
        **_zero(False, "Running OpenStdin OpenStderr OpenStdout CanRemove"),
        "ExitCode": None,
        "Pid": 0,
    },
    image.ImageSummary: {
        **_zero("", "Id ParentId"),
        **_zero([], "RepoTags RepoDigests"),
        **_zero(0, "Created Size"),
        **_zero(-1, "SharedSize Containers"),
        "Labels": None,
    },
    image.ImageInspect: {
        **_zero("", "Id Architecture Os"),
        **_zero([], "RepoTags RepoDigests"),
        "Size": 0,
        "Config": {},
        "Metadata": {"LastTagTime": "0001-01-01T00:00:00Z"},
    },
    image.ImageInspectRootFS: {"Type": ""},
    image.ImageInspectMetadata: {"LastTagTime": "0001-01-01T00:00:00Z"},
    image.ImageHistoryResponseItem: {
        **_zero("", "Id CreatedBy Comment"),
        **_zero(0, "Created Size"),
        "Tags": None,
    },
    image.ImagesPruneReport: {"ImagesDeleted": None, "SpaceReclaimed": 0},
    image.ImagesDiskUsage: _USAGE,
    image.BuildCacheDiskUsage: _USAGE,
    image.BuildPruneReport: {"CachesDeleted": None, "SpaceReclaimed": 0},
    image.ImageSearchItem: {
        **_zero("", "description name"),
        **_zero(False, "is_official is_automated"),
        "star_count": 0,
    },
    image.AuthResponse: {"Status": "", "IdentityToken": ""},
    network.Network: _NETWORK,
    network.NetworkSummary: _NETWORK,
    network.NetworkInspect: {**_NETWORK, "Containers": {}},
    network.IPAM: {"Driver": "", "Options": None, "Config": []},
    network.EndpointResource: _zero("", "Name EndpointID MacAddress IPv4Address IPv6Address"),
    network.NetworkCreateResponse: _zero("", "Id Warning"),
    network.NetworksPruneReport: {"NetworksDeleted": None},
    stats.ContainerCPUUsage: _zero(0, "total_usage usage_in_kernelmode usage_in_usermode"),
    stats.ContainerThrottlingData: _zero(0, "periods throttled_periods throttled_time"),
    stats.ContainerCPUStats: {
        "cpu_usage": _zero(0, "total_usage usage_in_kernelmode usage_in_usermode"),
        "throttling_data": _zero(0, "periods throttled_periods throttled_time"),
    },
    stats.ContainerBlkioStats: _zero(
        None,
        "io_service_bytes_recursive io_serviced_recursive io_queue_recursive "
        "io_service_time_recursive io_wait_time_recursive io_merged_recursive io_time_recursive "
        "sectors_recursive",
    ),
    stats.ContainerNetworkStats: _zero(
        0,
        "rx_bytes rx_packets rx_errors rx_dropped tx_bytes tx_packets tx_errors tx_dropped",
    ),
    stats.ContainerStatsResponse: {
        **_zero("", "id name"),
        **_zero("0001-01-01T00:00:00Z", "read preread"),
        **_zero({}, "pids_stats blkio_stats memory_stats storage_stats"),
        **_zero(
            {
                "cpu_usage": _zero(0, "total_usage usage_in_kernelmode usage_in_usermode"),
                "throttling_data": _zero(0, "periods throttled_periods throttled_time"),
            },
            "cpu_stats precpu_stats",
        ),
        "num_procs": 0,
    },
    system.SystemInfo: {
        **_zero(
            0,
            "Containers ContainersRunning ContainersPaused ContainersStopped Images NFd "
            "NGoroutines NEventsListener NCPU MemTotal",
        ),
        **_zero(
            False,
            "MemoryLimit SwapLimit CpuCfsPeriod CpuCfsQuota CPUShares CPUSet PidsLimit "
            "OomKillDisable IPv4Forwarding Debug ExperimentalBuild LiveRestoreEnabled",
        ),
        **_zero(
            "",
            "ID Driver DockerRootDir SystemTime LoggingDriver CgroupDriver KernelVersion "
            "OperatingSystem OSVersion OSType Architecture IndexServerAddress HttpProxy "
            "HttpsProxy NoProxy Name ServerVersion DefaultRuntime Isolation InitBinary",
        ),
        **_zero([], "DriverStatus Labels SecurityOptions"),
        **_zero(None, "GenericResources Warnings CDISpecDirs"),
        **_zero({"ID": ""}, "ContainerdCommit RuncCommit InitCommit"),
        "Runtimes": {},
        "Swarm": {
            **_zero("", "NodeID NodeAddr Error"),
            "LocalNodeState": "inactive",
            "ControlAvailable": False,
            "RemoteManagers": None,
        },
        "RegistryConfig": {"InsecureRegistryCIDRs": [], "IndexConfigs": {}, "Mirrors": None},
    },
    system.PluginsInfo: _zero(None, "Volume Network Authorization Log"),
    system.IndexInfo: {"Name": "", "Mirrors": [], "Secure": True, "Official": False},
    system.RegistryServiceConfig: {
        "InsecureRegistryCIDRs": [],
        "IndexConfigs": {},
        "Mirrors": None,
    },
    system.Runtime: {"path": ""},
    system.SwarmInfo: {
        **_zero("", "NodeID NodeAddr Error"),
        "LocalNodeState": "inactive",
        "ControlAvailable": False,
        "RemoteManagers": None,
    },
    system.Commit: {"ID": ""},
    system.EventActor: {"ID": "", "Attributes": {}},
    volume.Volume: {
        **_zero("", "Name Driver Mountpoint Scope"),
        **_zero(None, "Labels Options"),
    },
    volume.VolumeListResponse: {"Volumes": [], "Warnings": None},
    volume.VolumesPruneReport: {"VolumesDeleted": None, "SpaceReclaimed": 0},
    volume.VolumesDiskUsage: _USAGE,
}


def complete(value: object) -> Any:
    """A struct (or a list of them) as plain values with every field dockerd would write.

    Maps come in the order of their keys, as Go writes them: clients keep the order they read.
    """
    data = msgspec.to_builtins(value, order="deterministic")
    if isinstance(value, list):
        return [_fill(item, type(struct)) for item, struct in zip(data, value, strict=True)]
    return _fill(data, type(value))


def _fill(data: Any, kind: type[Any]) -> Any:
    plan = _plan(cast(Hashable, kind))
    if plan is None or not isinstance(data, dict):
        return data
    for name, inner, container_ in plan.nested:
        held = data.get(name)
        if held is None:
            continue
        if container_ is list:
            data[name] = [_fill(item, inner) for item in held]
        elif container_ is dict:
            data[name] = {
                key: [_fill(each, inner) for each in item]
                if isinstance(item, list)
                else _fill(item, inner)
                for key, item in held.items()
            }
        else:
            data[name] = _fill(held, inner)
    if not plan.template:
        return data
    merged = {**plan.template, **data}
    return {name: item for name, item in merged.items() if item is not _OMIT}


@dataclass(frozen=True, slots=True)
class _Plan:
    """How to complete one struct: all its fields in order, and the ones that hold structs."""

    template: dict[str, object]
    nested: tuple[tuple[str, type[msgspec.Struct], object], ...]


@cache
def _plan(kind: Hashable) -> _Plan | None:
    if not (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
        return None
    fields = msgspec.structs.fields(kind)
    nested = tuple(
        (field.encode_name, *found)
        for field in fields
        if (found := _struct_in(field.type)) is not None
    )
    present = _PRESENT.get(kind)
    if present is None:
        return _Plan({}, nested) if nested else None
    return _Plan({f.encode_name: present.get(f.encode_name, _OMIT) for f in fields}, nested)


def _struct_in(annotation: object) -> tuple[type[msgspec.Struct], object] | None:
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return annotation, None
    origin = get_origin(annotation)
    for argument in get_args(annotation):
        found = _struct_in(argument)
        if found is not None:
            return found[0], origin if origin in (list, dict) else found[1]
    return None
