"""The host's part of a container's configuration: resources, mounts, namespaces, networking.

API v1.55, spec/docker-api. Every field is optional on the wire; ``None`` means absent.
"""

from __future__ import annotations

import msgspec

from sampan.wire.base import Object


class DeviceMapping(Object, kw_only=True, frozen=True, omit_defaults=True):
    """A device mapping between the host and container."""

    path_on_host: str | None = msgspec.field(default=None, name="PathOnHost")
    path_in_container: str | None = msgspec.field(default=None, name="PathInContainer")
    cgroup_permissions: str | None = msgspec.field(default=None, name="CgroupPermissions")


class DeviceRequest(Object, kw_only=True, frozen=True, omit_defaults=True):
    """A request for devices to be sent to device drivers."""

    driver: str | None = msgspec.field(default=None, name="Driver")
    count: int | None = msgspec.field(default=None, name="Count")
    device_ids: list[str] | None = msgspec.field(default=None, name="DeviceIDs")
    capabilities: list[list[str]] | None = msgspec.field(default=None, name="Capabilities")
    options: dict[str, str] | None = msgspec.field(default=None, name="Options")


class ThrottleDevice(Object, kw_only=True, frozen=True, omit_defaults=True):
    """A limit of one block device: bytes or operations per second."""

    path: str | None = msgspec.field(default=None, name="Path")
    rate: int | None = msgspec.field(default=None, name="Rate")


class MountBindOptions(Object, kw_only=True, frozen=True, omit_defaults=True):
    """Optional configuration for the `bind` type."""

    propagation: str | None = msgspec.field(default=None, name="Propagation")
    non_recursive: bool | None = msgspec.field(default=None, name="NonRecursive")
    create_mountpoint: bool | None = msgspec.field(default=None, name="CreateMountpoint")
    read_only_non_recursive: bool | None = msgspec.field(default=None, name="ReadOnlyNonRecursive")
    read_only_force_recursive: bool | None = msgspec.field(
        default=None, name="ReadOnlyForceRecursive"
    )
    # sampan's own: the mount options idmap and U
    idmap: str | None = msgspec.field(default=None, name="IDMap")
    chown: bool | None = msgspec.field(default=None, name="Chown")


class MountVolumeOptionsDriverConfig(Object, kw_only=True, frozen=True, omit_defaults=True):
    """Map of driver specific options."""

    name: str | None = msgspec.field(default=None, name="Name")
    options: dict[str, str] | None = msgspec.field(default=None, name="Options")


class MountVolumeOptions(Object, kw_only=True, frozen=True, omit_defaults=True):
    """Optional configuration for the `volume` type."""

    no_copy: bool | None = msgspec.field(default=None, name="NoCopy")
    labels: dict[str, str] | None = msgspec.field(default=None, name="Labels")
    driver_config: MountVolumeOptionsDriverConfig | None = msgspec.field(
        default=None, name="DriverConfig"
    )
    subpath: str | None = msgspec.field(default=None, name="Subpath")
    # sampan's own: the mount options idmap and U
    idmap: str | None = msgspec.field(default=None, name="IDMap")
    chown: bool | None = msgspec.field(default=None, name="Chown")


class MountImageOptions(Object, kw_only=True, frozen=True, omit_defaults=True):
    """Optional configuration for the `image` type."""

    subpath: str | None = msgspec.field(default=None, name="Subpath")


class MountTmpfsOptions(Object, kw_only=True, frozen=True, omit_defaults=True):
    """Optional configuration for the `tmpfs` type."""

    size_bytes: int | None = msgspec.field(default=None, name="SizeBytes")
    mode: int | None = msgspec.field(default=None, name="Mode")
    options: list[list[str]] | None = msgspec.field(default=None, name="Options")


class Mount(Object, kw_only=True, frozen=True, omit_defaults=True):
    """A mount asked for in ``HostConfig.Mounts``."""

    target: str | None = msgspec.field(default=None, name="Target")
    source: str | None = msgspec.field(default=None, name="Source")
    type: str | None = msgspec.field(default=None, name="Type")
    read_only: bool | None = msgspec.field(default=None, name="ReadOnly")
    consistency: str | None = msgspec.field(default=None, name="Consistency")
    bind_options: MountBindOptions | None = msgspec.field(default=None, name="BindOptions")
    volume_options: MountVolumeOptions | None = msgspec.field(default=None, name="VolumeOptions")
    image_options: MountImageOptions | None = msgspec.field(default=None, name="ImageOptions")
    tmpfs_options: MountTmpfsOptions | None = msgspec.field(default=None, name="TmpfsOptions")


class RestartPolicy(Object, kw_only=True, frozen=True, omit_defaults=True):
    """The behavior to apply when the container exits."""

    name: str | None = msgspec.field(default=None, name="Name")
    maximum_retry_count: int | None = msgspec.field(default=None, name="MaximumRetryCount")


class ResourcesBlkioWeightDevice(Object, kw_only=True, frozen=True, omit_defaults=True):
    """The block IO weight of one device."""

    path: str | None = msgspec.field(default=None, name="Path")
    weight: int | None = msgspec.field(default=None, name="Weight")


class ResourcesUlimit(Object, kw_only=True, frozen=True, omit_defaults=True):
    """A resource limit of the processes, as setrlimit(2) takes it."""

    name: str | None = msgspec.field(default=None, name="Name")
    soft: int | None = msgspec.field(default=None, name="Soft")
    hard: int | None = msgspec.field(default=None, name="Hard")


class Resources(Object, kw_only=True, frozen=True, omit_defaults=True):
    """A container's resources (cgroups config, ulimits, etc)."""

    cpu_shares: int | None = msgspec.field(default=None, name="CpuShares")
    memory: int | None = msgspec.field(default=None, name="Memory")
    cgroup_parent: str | None = msgspec.field(default=None, name="CgroupParent")
    blkio_weight: int | None = msgspec.field(default=None, name="BlkioWeight")
    blkio_weight_device: list[ResourcesBlkioWeightDevice] | None = msgspec.field(
        default=None, name="BlkioWeightDevice"
    )
    blkio_device_read_bps: list[ThrottleDevice] | None = msgspec.field(
        default=None, name="BlkioDeviceReadBps"
    )
    blkio_device_write_bps: list[ThrottleDevice] | None = msgspec.field(
        default=None, name="BlkioDeviceWriteBps"
    )
    blkio_device_read_i_ops: list[ThrottleDevice] | None = msgspec.field(
        default=None, name="BlkioDeviceReadIOps"
    )
    blkio_device_write_i_ops: list[ThrottleDevice] | None = msgspec.field(
        default=None, name="BlkioDeviceWriteIOps"
    )
    cpu_period: int | None = msgspec.field(default=None, name="CpuPeriod")
    cpu_quota: int | None = msgspec.field(default=None, name="CpuQuota")
    cpu_realtime_period: int | None = msgspec.field(default=None, name="CpuRealtimePeriod")
    cpu_realtime_runtime: int | None = msgspec.field(default=None, name="CpuRealtimeRuntime")
    cpuset_cpus: str | None = msgspec.field(default=None, name="CpusetCpus")
    cpuset_mems: str | None = msgspec.field(default=None, name="CpusetMems")
    devices: list[DeviceMapping] | None = msgspec.field(default=None, name="Devices")
    device_cgroup_rules: list[str] | None = msgspec.field(default=None, name="DeviceCgroupRules")
    device_requests: list[DeviceRequest] | None = msgspec.field(default=None, name="DeviceRequests")
    memory_reservation: int | None = msgspec.field(default=None, name="MemoryReservation")
    memory_swap: int | None = msgspec.field(default=None, name="MemorySwap")
    memory_swappiness: int | None = msgspec.field(default=None, name="MemorySwappiness")
    nano_cpus: int | None = msgspec.field(default=None, name="NanoCpus")
    oom_kill_disable: bool | None = msgspec.field(default=None, name="OomKillDisable")
    init: bool | None = msgspec.field(default=None, name="Init")
    pids_limit: int | None = msgspec.field(default=None, name="PidsLimit")
    ulimits: list[ResourcesUlimit] | None = msgspec.field(default=None, name="Ulimits")
    cpu_count: int | None = msgspec.field(default=None, name="CpuCount")
    cpu_percent: int | None = msgspec.field(default=None, name="CpuPercent")
    io_maximum_i_ops: int | None = msgspec.field(default=None, name="IOMaximumIOps")
    io_maximum_bandwidth: int | None = msgspec.field(default=None, name="IOMaximumBandwidth")


class HostConfigLogConfig(Object, kw_only=True, frozen=True, omit_defaults=True):
    """The logging configuration for this container."""

    type: str | None = msgspec.field(default=None, name="Type")
    config: dict[str, str] | None = msgspec.field(default=None, name="Config")


class PortBinding(Object, kw_only=True, frozen=True, omit_defaults=True):
    """PortBinding represents a binding between a host IP address and a host port."""

    host_ip: str | None = msgspec.field(default=None, name="HostIp")
    host_port: str | None = msgspec.field(default=None, name="HostPort")


class HostConfig(Resources, kw_only=True, frozen=True, omit_defaults=True):
    """Container configuration that depends on the host we are running on."""

    binds: list[str] | None = msgspec.field(default=None, name="Binds")
    container_id_file: str | None = msgspec.field(default=None, name="ContainerIDFile")
    log_config: HostConfigLogConfig | None = msgspec.field(default=None, name="LogConfig")
    network_mode: str | None = msgspec.field(default=None, name="NetworkMode")
    port_bindings: dict[str, list[PortBinding] | None] | None = msgspec.field(
        default=None, name="PortBindings"
    )
    restart_policy: RestartPolicy | None = msgspec.field(default=None, name="RestartPolicy")
    auto_remove: bool | None = msgspec.field(default=None, name="AutoRemove")
    volume_driver: str | None = msgspec.field(default=None, name="VolumeDriver")
    volumes_from: list[str] | None = msgspec.field(default=None, name="VolumesFrom")
    mounts: list[Mount] | None = msgspec.field(default=None, name="Mounts")
    console_size: list[int] | None = msgspec.field(default=None, name="ConsoleSize")
    annotations: dict[str, str] | None = msgspec.field(default=None, name="Annotations")
    cap_add: list[str] | None = msgspec.field(default=None, name="CapAdd")
    cap_drop: list[str] | None = msgspec.field(default=None, name="CapDrop")
    cgroupns_mode: str | None = msgspec.field(default=None, name="CgroupnsMode")
    dns: list[str] | None = msgspec.field(default=None, name="Dns")
    dns_options: list[str] | None = msgspec.field(default=None, name="DnsOptions")
    dns_search: list[str] | None = msgspec.field(default=None, name="DnsSearch")
    extra_hosts: list[str] | None = msgspec.field(default=None, name="ExtraHosts")
    group_add: list[str] | None = msgspec.field(default=None, name="GroupAdd")
    ipc_mode: str | None = msgspec.field(default=None, name="IpcMode")
    cgroup: str | None = msgspec.field(default=None, name="Cgroup")
    links: list[str] | None = msgspec.field(default=None, name="Links")
    oom_score_adj: int | None = msgspec.field(default=None, name="OomScoreAdj")
    pid_mode: str | None = msgspec.field(default=None, name="PidMode")
    privileged: bool | None = msgspec.field(default=None, name="Privileged")
    publish_all_ports: bool | None = msgspec.field(default=None, name="PublishAllPorts")
    readonly_rootfs: bool | None = msgspec.field(default=None, name="ReadonlyRootfs")
    security_opt: list[str] | None = msgspec.field(default=None, name="SecurityOpt")
    storage_opt: dict[str, str] | None = msgspec.field(default=None, name="StorageOpt")
    tmpfs: dict[str, str] | None = msgspec.field(default=None, name="Tmpfs")
    uts_mode: str | None = msgspec.field(default=None, name="UTSMode")
    userns_mode: str | None = msgspec.field(default=None, name="UsernsMode")
    shm_size: int | None = msgspec.field(default=None, name="ShmSize")
    sysctls: dict[str, str] | None = msgspec.field(default=None, name="Sysctls")
    runtime: str | None = msgspec.field(default=None, name="Runtime")
    isolation: str | None = msgspec.field(default=None, name="Isolation")
    masked_paths: list[str] | None = msgspec.field(default=None, name="MaskedPaths")
    readonly_paths: list[str] | None = msgspec.field(default=None, name="ReadonlyPaths")
