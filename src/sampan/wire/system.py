"""The daemon itself: information, version, events, disk usage.

As the Docker Engine API v1.55 writes them (spec/docker-api).

Every field is optional on the wire; ``None`` means absent. Only the edge decodes these from
untrusted input; msgspec names the offending field.
"""

from __future__ import annotations

import msgspec

from sampan.wire.base import Json, Object
from sampan.wire.container import ContainersDiskUsage
from sampan.wire.image import BuildCacheDiskUsage, ImagesDiskUsage
from sampan.wire.volume import VolumesDiskUsage


class SystemVersionPlatform(Object, kw_only=True, frozen=True, omit_defaults=True):
    """The product the daemon is part of."""

    name: str | None = msgspec.field(default=None, name="Name")


class SystemVersionComponent(Object, kw_only=True, frozen=True, omit_defaults=True):
    """One component of the daemon and its version."""

    name: str | None = msgspec.field(default=None, name="Name")
    version: str | None = msgspec.field(default=None, name="Version")
    details: dict[str, Json] | None = msgspec.field(default=None, name="Details")


class SystemVersion(Object, kw_only=True, frozen=True, omit_defaults=True):
    """Response of Engine API: GET '/version'."""

    platform: SystemVersionPlatform | None = msgspec.field(default=None, name="Platform")
    components: list[SystemVersionComponent] | None = msgspec.field(default=None, name="Components")
    version: str | None = msgspec.field(default=None, name="Version")
    api_version: str | None = msgspec.field(default=None, name="ApiVersion")
    min_api_version: str | None = msgspec.field(default=None, name="MinAPIVersion")
    git_commit: str | None = msgspec.field(default=None, name="GitCommit")
    go_version: str | None = msgspec.field(default=None, name="GoVersion")
    os: str | None = msgspec.field(default=None, name="Os")
    arch: str | None = msgspec.field(default=None, name="Arch")
    kernel_version: str | None = msgspec.field(default=None, name="KernelVersion")
    experimental: bool | None = msgspec.field(default=None, name="Experimental")
    build_time: str | None = msgspec.field(default=None, name="BuildTime")


class PluginsInfo(Object, kw_only=True, frozen=True, omit_defaults=True):
    """Available plugins per type."""

    volume: list[str] | None = msgspec.field(default=None, name="Volume")
    network: list[str] | None = msgspec.field(default=None, name="Network")
    authorization: list[str] | None = msgspec.field(default=None, name="Authorization")
    log: list[str] | None = msgspec.field(default=None, name="Log")


class IndexInfo(Object, kw_only=True, frozen=True, omit_defaults=True):
    """IndexInfo contains information about a registry."""

    name: str | None = msgspec.field(default=None, name="Name")
    mirrors: list[str] | None = msgspec.field(default=None, name="Mirrors")
    secure: bool | None = msgspec.field(default=None, name="Secure")
    official: bool | None = msgspec.field(default=None, name="Official")


class RegistryServiceConfig(Object, kw_only=True, frozen=True, omit_defaults=True):
    """RegistryServiceConfig stores daemon registry services configuration."""

    insecure_registry_cid_rs: list[str] | None = msgspec.field(
        default=None, name="InsecureRegistryCIDRs"
    )
    index_configs: dict[str, IndexInfo] | None = msgspec.field(default=None, name="IndexConfigs")
    mirrors: list[str] | None = msgspec.field(default=None, name="Mirrors")


class GenericResourceNamedResourceSpec(Object, kw_only=True, frozen=True, omit_defaults=True):
    """A user-defined resource that has a name."""

    kind: str | None = msgspec.field(default=None, name="Kind")
    value: str | None = msgspec.field(default=None, name="Value")


class GenericResourceDiscreteResourceSpec(Object, kw_only=True, frozen=True, omit_defaults=True):
    """A user-defined resource that is counted."""

    kind: str | None = msgspec.field(default=None, name="Kind")
    value: int | None = msgspec.field(default=None, name="Value")


class GenericResource(Object, kw_only=True, frozen=True, omit_defaults=True):
    """A user-defined resource of a swarm node."""

    named_resource_spec: GenericResourceNamedResourceSpec | None = msgspec.field(
        default=None, name="NamedResourceSpec"
    )
    discrete_resource_spec: GenericResourceDiscreteResourceSpec | None = msgspec.field(
        default=None, name="DiscreteResourceSpec"
    )


class Runtime(Object, kw_only=True, frozen=True, omit_defaults=True):
    """An OCI runtime: its program and arguments, and what it can do."""

    path: str | None = None
    runtime_args: list[str] | None = msgspec.field(default=None, name="runtimeArgs")
    status: dict[str, str] | None = None


class PeerNode(Object, kw_only=True, frozen=True, omit_defaults=True):
    """Represents a peer-node in the swarm."""

    node_id: str | None = msgspec.field(default=None, name="NodeID")
    addr: str | None = msgspec.field(default=None, name="Addr")


class SwarmInfo(Object, kw_only=True, frozen=True, omit_defaults=True):
    """Represents generic information about swarm."""

    node_id: str | None = msgspec.field(default=None, name="NodeID")
    node_addr: str | None = msgspec.field(default=None, name="NodeAddr")
    local_node_state: str | None = msgspec.field(default=None, name="LocalNodeState")
    control_available: bool | None = msgspec.field(default=None, name="ControlAvailable")
    error: str | None = msgspec.field(default=None, name="Error")
    remote_managers: list[PeerNode] | None = msgspec.field(default=None, name="RemoteManagers")
    nodes: int | None = msgspec.field(default=None, name="Nodes")
    managers: int | None = msgspec.field(default=None, name="Managers")
    cluster: Json | None = msgspec.field(default=None, name="Cluster")


class Commit(Object, kw_only=True, frozen=True, omit_defaults=True):
    """The commit an external tool was built from."""

    id: str | None = msgspec.field(default=None, name="ID")


class SystemInfoDefaultAddressPool(Object, kw_only=True, frozen=True, omit_defaults=True):
    """A pool new networks take their subnets from."""

    base: str | None = msgspec.field(default=None, name="Base")
    size: int | None = msgspec.field(default=None, name="Size")


class FirewallInfo(Object, kw_only=True, frozen=True, omit_defaults=True):
    """Information about the daemon's firewalling configuration."""

    driver: str | None = msgspec.field(default=None, name="Driver")
    info: list[list[str]] | None = msgspec.field(default=None, name="Info")


class DeviceInfo(Object, kw_only=True, frozen=True, omit_defaults=True):
    """DeviceInfo represents a device that can be used by a container."""

    source: str | None = msgspec.field(default=None, name="Source")
    id: str | None = msgspec.field(default=None, name="ID")


class NRIInfo(Object, kw_only=True, frozen=True, omit_defaults=True):
    """Information about the Node Resource Interface (NRI)."""

    info: list[list[str]] | None = msgspec.field(default=None, name="Info")


class ContainerdInfoNamespaces(Object, kw_only=True, frozen=True, omit_defaults=True):
    """The namespaces that the daemon uses for running containers and plugins in containerd."""

    containers: str | None = msgspec.field(default=None, name="Containers")
    plugins: str | None = msgspec.field(default=None, name="Plugins")


class ContainerdInfo(Object, kw_only=True, frozen=True, omit_defaults=True):
    """Information for connecting to the containerd instance that is used by the daemon."""

    address: str | None = msgspec.field(default=None, name="Address")
    namespaces: ContainerdInfoNamespaces | None = msgspec.field(default=None, name="Namespaces")


class SystemInfo(Object, kw_only=True, frozen=True, omit_defaults=True):
    """What the daemon and its host are and can do (``GET /info``)."""

    id: str | None = msgspec.field(default=None, name="ID")
    containers: int | None = msgspec.field(default=None, name="Containers")
    containers_running: int | None = msgspec.field(default=None, name="ContainersRunning")
    containers_paused: int | None = msgspec.field(default=None, name="ContainersPaused")
    containers_stopped: int | None = msgspec.field(default=None, name="ContainersStopped")
    images: int | None = msgspec.field(default=None, name="Images")
    driver: str | None = msgspec.field(default=None, name="Driver")
    driver_status: list[list[str]] | None = msgspec.field(default=None, name="DriverStatus")
    docker_root_dir: str | None = msgspec.field(default=None, name="DockerRootDir")
    plugins: PluginsInfo | None = msgspec.field(default=None, name="Plugins")
    memory_limit: bool | None = msgspec.field(default=None, name="MemoryLimit")
    swap_limit: bool | None = msgspec.field(default=None, name="SwapLimit")
    cpu_cfs_period: bool | None = msgspec.field(default=None, name="CpuCfsPeriod")
    cpu_cfs_quota: bool | None = msgspec.field(default=None, name="CpuCfsQuota")
    cpu_shares: bool | None = msgspec.field(default=None, name="CPUShares")
    cpu_set: bool | None = msgspec.field(default=None, name="CPUSet")
    pids_limit: bool | None = msgspec.field(default=None, name="PidsLimit")
    oom_kill_disable: bool | None = msgspec.field(default=None, name="OomKillDisable")
    ipv4_forwarding: bool | None = msgspec.field(default=None, name="IPv4Forwarding")
    debug: bool | None = msgspec.field(default=None, name="Debug")
    n_fd: int | None = msgspec.field(default=None, name="NFd")
    n_goroutines: int | None = msgspec.field(default=None, name="NGoroutines")
    system_time: str | None = msgspec.field(default=None, name="SystemTime")
    logging_driver: str | None = msgspec.field(default=None, name="LoggingDriver")
    cgroup_driver: str | None = msgspec.field(default=None, name="CgroupDriver")
    cgroup_version: str | None = msgspec.field(default=None, name="CgroupVersion")
    n_events_listener: int | None = msgspec.field(default=None, name="NEventsListener")
    kernel_version: str | None = msgspec.field(default=None, name="KernelVersion")
    operating_system: str | None = msgspec.field(default=None, name="OperatingSystem")
    os_version: str | None = msgspec.field(default=None, name="OSVersion")
    os_type: str | None = msgspec.field(default=None, name="OSType")
    architecture: str | None = msgspec.field(default=None, name="Architecture")
    ncpu: int | None = msgspec.field(default=None, name="NCPU")
    mem_total: int | None = msgspec.field(default=None, name="MemTotal")
    index_server_address: str | None = msgspec.field(default=None, name="IndexServerAddress")
    registry_config: RegistryServiceConfig | None = msgspec.field(
        default=None, name="RegistryConfig"
    )
    generic_resources: list[GenericResource] | None = msgspec.field(
        default=None, name="GenericResources"
    )
    http_proxy: str | None = msgspec.field(default=None, name="HttpProxy")
    https_proxy: str | None = msgspec.field(default=None, name="HttpsProxy")
    no_proxy: str | None = msgspec.field(default=None, name="NoProxy")
    name: str | None = msgspec.field(default=None, name="Name")
    labels: list[str] | None = msgspec.field(default=None, name="Labels")
    experimental_build: bool | None = msgspec.field(default=None, name="ExperimentalBuild")
    server_version: str | None = msgspec.field(default=None, name="ServerVersion")
    runtimes: dict[str, Runtime] | None = msgspec.field(default=None, name="Runtimes")
    default_runtime: str | None = msgspec.field(default=None, name="DefaultRuntime")
    swarm: SwarmInfo | None = msgspec.field(default=None, name="Swarm")
    live_restore_enabled: bool | None = msgspec.field(default=None, name="LiveRestoreEnabled")
    isolation: str | None = msgspec.field(default=None, name="Isolation")
    init_binary: str | None = msgspec.field(default=None, name="InitBinary")
    containerd_commit: Commit | None = msgspec.field(default=None, name="ContainerdCommit")
    runc_commit: Commit | None = msgspec.field(default=None, name="RuncCommit")
    init_commit: Commit | None = msgspec.field(default=None, name="InitCommit")
    security_options: list[str] | None = msgspec.field(default=None, name="SecurityOptions")
    product_license: str | None = msgspec.field(default=None, name="ProductLicense")
    default_address_pools: list[SystemInfoDefaultAddressPool] | None = msgspec.field(
        default=None, name="DefaultAddressPools"
    )
    firewall_backend: FirewallInfo | None = msgspec.field(default=None, name="FirewallBackend")
    discovered_devices: list[DeviceInfo] | None = msgspec.field(
        default=None, name="DiscoveredDevices"
    )
    nri: NRIInfo | None = msgspec.field(default=None, name="NRI")
    warnings: list[str] | None = msgspec.field(default=None, name="Warnings")
    cdi_spec_dirs: list[str] | None = msgspec.field(default=None, name="CDISpecDirs")
    containerd: ContainerdInfo | None = msgspec.field(default=None, name="Containerd")


class EventActor(Object, kw_only=True, frozen=True, omit_defaults=True):
    """Actor describes something that generates events, like a container, network, or a volume."""

    id: str | None = msgspec.field(default=None, name="ID")
    attributes: dict[str, str] | None = msgspec.field(default=None, name="Attributes")


class EventMessage(Object, kw_only=True, frozen=True, omit_defaults=True):
    """EventMessage represents the information an event contains."""

    type: str | None = msgspec.field(default=None, name="Type")
    action: str | None = msgspec.field(default=None, name="Action")
    actor: EventActor | None = msgspec.field(default=None, name="Actor")
    scope: str | None = None
    time: int | None = None
    time_nano: int | None = msgspec.field(default=None, name="timeNano")


class SystemDataUsage(Object, kw_only=True, frozen=True, omit_defaults=True):
    """Disk usage by kind of object (``GET /system/df``)."""

    image_usage: ImagesDiskUsage | None = msgspec.field(default=None, name="ImageUsage")
    container_usage: ContainersDiskUsage | None = msgspec.field(default=None, name="ContainerUsage")
    volume_usage: VolumesDiskUsage | None = msgspec.field(default=None, name="VolumeUsage")
    build_cache_usage: BuildCacheDiskUsage | None = msgspec.field(
        default=None, name="BuildCacheUsage"
    )
