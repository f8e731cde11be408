"""Containers: configuration, state and listings, as the Docker Engine API writes them.

API v1.55, spec/docker-api.

Every field is optional on the wire; ``None`` means absent. Only the edge decodes these from
untrusted input; msgspec names the offending field.
"""

from __future__ import annotations

import msgspec

from sampan.wire.base import Json, Object
from sampan.wire.hostconfig import DeviceMapping as DeviceMapping
from sampan.wire.hostconfig import DeviceRequest as DeviceRequest
from sampan.wire.hostconfig import HostConfig as HostConfig
from sampan.wire.hostconfig import HostConfigLogConfig as HostConfigLogConfig
from sampan.wire.hostconfig import Mount as Mount
from sampan.wire.hostconfig import MountBindOptions as MountBindOptions
from sampan.wire.hostconfig import MountImageOptions as MountImageOptions
from sampan.wire.hostconfig import MountTmpfsOptions as MountTmpfsOptions
from sampan.wire.hostconfig import MountVolumeOptions as MountVolumeOptions
from sampan.wire.hostconfig import MountVolumeOptionsDriverConfig as MountVolumeOptionsDriverConfig
from sampan.wire.hostconfig import PortBinding as PortBinding
from sampan.wire.hostconfig import Resources as Resources
from sampan.wire.hostconfig import ResourcesBlkioWeightDevice as ResourcesBlkioWeightDevice
from sampan.wire.hostconfig import ResourcesUlimit as ResourcesUlimit
from sampan.wire.hostconfig import RestartPolicy as RestartPolicy
from sampan.wire.hostconfig import ThrottleDevice as ThrottleDevice


class MountPoint(Object, kw_only=True, frozen=True, omit_defaults=True):
    """MountPoint represents a mount point configuration inside the container."""

    type: str | None = msgspec.field(default=None, name="Type")
    name: str | None = msgspec.field(default=None, name="Name")
    source: str | None = msgspec.field(default=None, name="Source")
    destination: str | None = msgspec.field(default=None, name="Destination")
    driver: str | None = msgspec.field(default=None, name="Driver")
    mode: str | None = msgspec.field(default=None, name="Mode")
    rw: bool | None = msgspec.field(default=None, name="RW")
    propagation: str | None = msgspec.field(default=None, name="Propagation")


class HealthConfig(Object, kw_only=True, frozen=True, omit_defaults=True):
    """A test to perform to check that the container is healthy."""

    test: list[str] | None = msgspec.field(default=None, name="Test")
    interval: int | None = msgspec.field(default=None, name="Interval")
    timeout: int | None = msgspec.field(default=None, name="Timeout")
    retries: int | None = msgspec.field(default=None, name="Retries")
    start_period: int | None = msgspec.field(default=None, name="StartPeriod")
    start_interval: int | None = msgspec.field(default=None, name="StartInterval")


class HealthcheckResult(Object, kw_only=True, frozen=True, omit_defaults=True):
    """HealthcheckResult stores information about a single run of a healthcheck probe."""

    start: str | None = msgspec.field(default=None, name="Start")
    end: str | None = msgspec.field(default=None, name="End")
    exit_code: int | None = msgspec.field(default=None, name="ExitCode")
    output: str | None = msgspec.field(default=None, name="Output")


class Health(Object, kw_only=True, frozen=True, omit_defaults=True):
    """Health stores information about the container's healthcheck results."""

    status: str | None = msgspec.field(default=None, name="Status")
    failing_streak: int | None = msgspec.field(default=None, name="FailingStreak")
    log: list[HealthcheckResult] | None = msgspec.field(default=None, name="Log")


class ContainerConfig(Object, kw_only=True, frozen=True, omit_defaults=True):
    """Configuration for a container that is portable between hosts."""

    hostname: str | None = msgspec.field(default=None, name="Hostname")
    domainname: str | None = msgspec.field(default=None, name="Domainname")
    user: str | None = msgspec.field(default=None, name="User")
    attach_stdin: bool | None = msgspec.field(default=None, name="AttachStdin")
    attach_stdout: bool | None = msgspec.field(default=None, name="AttachStdout")
    attach_stderr: bool | None = msgspec.field(default=None, name="AttachStderr")
    exposed_ports: dict[str, dict[str, Json]] | None = msgspec.field(
        default=None, name="ExposedPorts"
    )
    tty: bool | None = msgspec.field(default=None, name="Tty")
    open_stdin: bool | None = msgspec.field(default=None, name="OpenStdin")
    stdin_once: bool | None = msgspec.field(default=None, name="StdinOnce")
    env: list[str] | None = msgspec.field(default=None, name="Env")
    cmd: list[str] | None = msgspec.field(default=None, name="Cmd")
    healthcheck: HealthConfig | None = msgspec.field(default=None, name="Healthcheck")
    args_escaped: bool | None = msgspec.field(default=None, name="ArgsEscaped")
    image: str | None = msgspec.field(default=None, name="Image")
    volumes: dict[str, dict[str, Json]] | None = msgspec.field(default=None, name="Volumes")
    working_dir: str | None = msgspec.field(default=None, name="WorkingDir")
    entrypoint: list[str] | None = msgspec.field(default=None, name="Entrypoint")
    network_disabled: bool | None = msgspec.field(default=None, name="NetworkDisabled")
    on_build: list[str] | None = msgspec.field(default=None, name="OnBuild")
    labels: dict[str, str] | None = msgspec.field(default=None, name="Labels")
    stop_signal: str | None = msgspec.field(default=None, name="StopSignal")
    stop_timeout: int | None = msgspec.field(default=None, name="StopTimeout")
    shell: list[str] | None = msgspec.field(default=None, name="Shell")
    #: until API 1.51; the endpoint of the container's network has it since
    mac_address: str | None = msgspec.field(default=None, name="MacAddress")


class EndpointIPAMConfig(Object, kw_only=True, frozen=True, omit_defaults=True):
    """EndpointIPAMConfig represents an endpoint's IPAM configuration."""

    ipv4_address: str | None = msgspec.field(default=None, name="IPv4Address")
    ipv6_address: str | None = msgspec.field(default=None, name="IPv6Address")
    link_local_ips: list[str] | None = msgspec.field(default=None, name="LinkLocalIPs")


class EndpointSettings(Object, kw_only=True, frozen=True, omit_defaults=True):
    """Configuration for a network endpoint."""

    ipam_config: EndpointIPAMConfig | None = msgspec.field(default=None, name="IPAMConfig")
    links: list[str] | None = msgspec.field(default=None, name="Links")
    mac_address: str | None = msgspec.field(default=None, name="MacAddress")
    aliases: list[str] | None = msgspec.field(default=None, name="Aliases")
    driver_opts: dict[str, str] | None = msgspec.field(default=None, name="DriverOpts")
    gw_priority: int | None = msgspec.field(default=None, name="GwPriority")
    network_id: str | None = msgspec.field(default=None, name="NetworkID")
    endpoint_id: str | None = msgspec.field(default=None, name="EndpointID")
    gateway: str | None = msgspec.field(default=None, name="Gateway")
    ip_address: str | None = msgspec.field(default=None, name="IPAddress")
    ip_prefix_len: int | None = msgspec.field(default=None, name="IPPrefixLen")
    ipv6_gateway: str | None = msgspec.field(default=None, name="IPv6Gateway")
    global_ipv6_address: str | None = msgspec.field(default=None, name="GlobalIPv6Address")
    global_ipv6_prefix_len: int | None = msgspec.field(default=None, name="GlobalIPv6PrefixLen")
    dns_names: list[str] | None = msgspec.field(default=None, name="DNSNames")


class NetworkingConfig(Object, kw_only=True, frozen=True, omit_defaults=True):
    """The container's networks: one endpoint configuration for each."""

    endpoints_config: dict[str, EndpointSettings] | None = msgspec.field(
        default=None, name="EndpointsConfig"
    )


class NetworkSettings(Object, kw_only=True, frozen=True, omit_defaults=True):
    """NetworkSettings exposes the network settings in the API."""

    sandbox_id: str | None = msgspec.field(default=None, name="SandboxID")
    sandbox_key: str | None = msgspec.field(default=None, name="SandboxKey")
    ports: dict[str, list[PortBinding] | None] | None = msgspec.field(default=None, name="Ports")
    networks: dict[str, EndpointSettings] | None = msgspec.field(default=None, name="Networks")


class Address(Object, kw_only=True, frozen=True, omit_defaults=True):
    """Address represents an IPv4 or IPv6 IP address."""

    addr: str | None = msgspec.field(default=None, name="Addr")
    prefix_len: int | None = msgspec.field(default=None, name="PrefixLen")


class PortSummary(Object, kw_only=True, frozen=True, omit_defaults=True):
    """Describes a port-mapping between the container and the host."""

    ip: str | None = msgspec.field(default=None, name="IP")
    private_port: int | None = msgspec.field(default=None, name="PrivatePort")
    public_port: int | None = msgspec.field(default=None, name="PublicPort")
    type: str | None = msgspec.field(default=None, name="Type")


class DriverData(Object, kw_only=True, frozen=True, omit_defaults=True):
    """Information about the storage driver used to store the container's and image's filesystem."""

    name: str | None = msgspec.field(default=None, name="Name")
    data: dict[str, str] | None = msgspec.field(default=None, name="Data")


class RootFSStorageSnapshot(Object, kw_only=True, frozen=True, omit_defaults=True):
    """Information about a snapshot backend of the container's root filesystem."""

    name: str | None = msgspec.field(default=None, name="Name")


class RootFSStorage(Object, kw_only=True, frozen=True, omit_defaults=True):
    """Information about the storage used for the container's root filesystem."""

    snapshot: RootFSStorageSnapshot | None = msgspec.field(default=None, name="Snapshot")


class Storage(Object, kw_only=True, frozen=True, omit_defaults=True):
    """Information about the storage used by the container."""

    root_fs: RootFSStorage | None = msgspec.field(default=None, name="RootFS")


class FilesystemChange(Object, kw_only=True, frozen=True, omit_defaults=True):
    """Change in the container's filesystem."""

    path: str | None = msgspec.field(default=None, name="Path")
    kind: int | None = msgspec.field(default=None, name="Kind")


class ContainerState(Object, kw_only=True, frozen=True, omit_defaults=True):
    """ContainerState stores container's running state."""

    status: str | None = msgspec.field(default=None, name="Status")
    running: bool | None = msgspec.field(default=None, name="Running")
    paused: bool | None = msgspec.field(default=None, name="Paused")
    restarting: bool | None = msgspec.field(default=None, name="Restarting")
    oom_killed: bool | None = msgspec.field(default=None, name="OOMKilled")
    dead: bool | None = msgspec.field(default=None, name="Dead")
    pid: int | None = msgspec.field(default=None, name="Pid")
    exit_code: int | None = msgspec.field(default=None, name="ExitCode")
    error: str | None = msgspec.field(default=None, name="Error")
    started_at: str | None = msgspec.field(default=None, name="StartedAt")
    finished_at: str | None = msgspec.field(default=None, name="FinishedAt")
    health: Health | None = msgspec.field(default=None, name="Health")


class OCIPlatform(Object, kw_only=True, frozen=True, omit_defaults=True):
    """The platform an image runs on (OCI image spec, image-index.md)."""

    architecture: str | None = None
    os: str | None = None
    os_version: str | None = msgspec.field(default=None, name="os.version")
    os_features: list[str] | None = msgspec.field(default=None, name="os.features")
    variant: str | None = None


class OCIDescriptor(Object, kw_only=True, frozen=True, omit_defaults=True):
    """Digest, media type and size of some content (OCI image spec, descriptor.md)."""

    media_type: str | None = msgspec.field(default=None, name="mediaType")
    digest: str | None = None
    size: int | None = None
    urls: list[str] | None = None
    annotations: dict[str, str] | None = None
    data: str | None = None
    platform: OCIPlatform | None = None
    artifact_type: str | None = msgspec.field(default=None, name="artifactType")


class ContainerInspectResponse(Object, kw_only=True, frozen=True, omit_defaults=True):
    """Everything about one container (``GET /containers/{id}/json``)."""

    id: str | None = msgspec.field(default=None, name="Id")
    created: str | None = msgspec.field(default=None, name="Created")
    path: str | None = msgspec.field(default=None, name="Path")
    args: list[str] | None = msgspec.field(default=None, name="Args")
    state: ContainerState | None = msgspec.field(default=None, name="State")
    image: str | None = msgspec.field(default=None, name="Image")
    resolv_conf_path: str | None = msgspec.field(default=None, name="ResolvConfPath")
    hostname_path: str | None = msgspec.field(default=None, name="HostnamePath")
    hosts_path: str | None = msgspec.field(default=None, name="HostsPath")
    log_path: str | None = msgspec.field(default=None, name="LogPath")
    name: str | None = msgspec.field(default=None, name="Name")
    restart_count: int | None = msgspec.field(default=None, name="RestartCount")
    driver: str | None = msgspec.field(default=None, name="Driver")
    platform: str | None = msgspec.field(default=None, name="Platform")
    image_manifest_descriptor: OCIDescriptor | None = msgspec.field(
        default=None, name="ImageManifestDescriptor"
    )
    mount_label: str | None = msgspec.field(default=None, name="MountLabel")
    process_label: str | None = msgspec.field(default=None, name="ProcessLabel")
    app_armor_profile: str | None = msgspec.field(default=None, name="AppArmorProfile")
    exec_ids: list[str] | None = msgspec.field(default=None, name="ExecIDs")
    host_config: HostConfig | None = msgspec.field(default=None, name="HostConfig")
    graph_driver: DriverData | None = msgspec.field(default=None, name="GraphDriver")
    storage: Storage | None = msgspec.field(default=None, name="Storage")
    size_rw: int | None = msgspec.field(default=None, name="SizeRw")
    size_root_fs: int | None = msgspec.field(default=None, name="SizeRootFs")
    mounts: list[MountPoint] | None = msgspec.field(default=None, name="Mounts")
    config: ContainerConfig | None = msgspec.field(default=None, name="Config")
    network_settings: NetworkSettings | None = msgspec.field(default=None, name="NetworkSettings")


class ContainerSummaryHostConfig(Object, kw_only=True, frozen=True, omit_defaults=True):
    """Summary of host-specific runtime information of the container."""

    network_mode: str | None = msgspec.field(default=None, name="NetworkMode")
    annotations: dict[str, str] | None = msgspec.field(default=None, name="Annotations")


class ContainerSummaryNetworkSettings(Object, kw_only=True, frozen=True, omit_defaults=True):
    """Summary of the container's network settings."""

    networks: dict[str, EndpointSettings] | None = msgspec.field(default=None, name="Networks")


class ContainerSummaryHealth(Object, kw_only=True, frozen=True, omit_defaults=True):
    """Summary of the health status (since API 1.52)."""

    status: str | None = msgspec.field(default=None, name="Status")
    failing_streak: int | None = msgspec.field(default=None, name="FailingStreak")


class ContainerSummary(Object, kw_only=True, frozen=True, omit_defaults=True):
    """One container in a list (``GET /containers/json``)."""

    id: str | None = msgspec.field(default=None, name="Id")
    names: list[str] | None = msgspec.field(default=None, name="Names")
    image: str | None = msgspec.field(default=None, name="Image")
    image_id: str | None = msgspec.field(default=None, name="ImageID")
    image_manifest_descriptor: OCIDescriptor | None = msgspec.field(
        default=None, name="ImageManifestDescriptor"
    )
    command: str | None = msgspec.field(default=None, name="Command")
    created: int | None = msgspec.field(default=None, name="Created")
    ports: list[PortSummary] | None = msgspec.field(default=None, name="Ports")
    size_rw: int | None = msgspec.field(default=None, name="SizeRw")
    size_root_fs: int | None = msgspec.field(default=None, name="SizeRootFs")
    labels: dict[str, str] | None = msgspec.field(default=None, name="Labels")
    state: str | None = msgspec.field(default=None, name="State")
    status: str | None = msgspec.field(default=None, name="Status")
    host_config: ContainerSummaryHostConfig | None = msgspec.field(default=None, name="HostConfig")
    network_settings: ContainerSummaryNetworkSettings | None = msgspec.field(
        default=None, name="NetworkSettings"
    )
    mounts: list[MountPoint] | None = msgspec.field(default=None, name="Mounts")
    health: ContainerSummaryHealth | None = msgspec.field(default=None, name="Health")


class ContainersDiskUsage(Object, kw_only=True, frozen=True, omit_defaults=True):
    """represents system data usage information for container resources."""

    active_count: int | None = msgspec.field(default=None, name="ActiveCount")
    total_count: int | None = msgspec.field(default=None, name="TotalCount")
    reclaimable: int | None = msgspec.field(default=None, name="Reclaimable")
    total_size: int | None = msgspec.field(default=None, name="TotalSize")
    items: list[dict[str, Json]] | None = msgspec.field(default=None, name="Items")


class ContainerCreateResponse(Object, kw_only=True, frozen=True, omit_defaults=True):
    """OK response to ContainerCreate operation."""

    id: str | None = msgspec.field(default=None, name="Id")
    warnings: list[str] | None = msgspec.field(default=None, name="Warnings")


class ContainerUpdateResponse(Object, kw_only=True, frozen=True, omit_defaults=True):
    """Response for a successful container-update."""

    warnings: list[str] | None = msgspec.field(default=None, name="Warnings")


class ContainerTopResponse(Object, kw_only=True, frozen=True, omit_defaults=True):
    """Container 'top' response."""

    titles: list[str] | None = msgspec.field(default=None, name="Titles")
    processes: list[list[str]] | None = msgspec.field(default=None, name="Processes")


class ContainerWaitExitError(Object, kw_only=True, frozen=True, omit_defaults=True):
    """container waiting error, if any."""

    message: str | None = msgspec.field(default=None, name="Message")


class ContainerWaitResponse(Object, kw_only=True, frozen=True, omit_defaults=True):
    """OK response to ContainerWait operation."""

    status_code: int | None = msgspec.field(default=None, name="StatusCode")
    error: ContainerWaitExitError | None = msgspec.field(default=None, name="Error")


class ImageConfig(Object, kw_only=True, frozen=True, omit_defaults=True):
    """Configuration of the image."""

    user: str | None = msgspec.field(default=None, name="User")
    exposed_ports: dict[str, dict[str, Json]] | None = msgspec.field(
        default=None, name="ExposedPorts"
    )
    env: list[str] | None = msgspec.field(default=None, name="Env")
    cmd: list[str] | None = msgspec.field(default=None, name="Cmd")
    healthcheck: HealthConfig | None = msgspec.field(default=None, name="Healthcheck")
    args_escaped: bool | None = msgspec.field(default=None, name="ArgsEscaped")
    volumes: dict[str, dict[str, Json]] | None = msgspec.field(default=None, name="Volumes")
    working_dir: str | None = msgspec.field(default=None, name="WorkingDir")
    entrypoint: list[str] | None = msgspec.field(default=None, name="Entrypoint")
    on_build: list[str] | None = msgspec.field(default=None, name="OnBuild")
    labels: dict[str, str] | None = msgspec.field(default=None, name="Labels")
    stop_signal: str | None = msgspec.field(default=None, name="StopSignal")
    shell: list[str] | None = msgspec.field(default=None, name="Shell")


class IDResponse(Object, kw_only=True, frozen=True, omit_defaults=True):
    """Response to an API call that returns just an Id."""

    id: str | None = msgspec.field(default=None, name="Id")


class Limit(Object, kw_only=True, frozen=True, omit_defaults=True):
    """An object describing a limit on resources which can be requested by a task."""

    nano_cpus: int | None = msgspec.field(default=None, name="NanoCPUs")
    memory_bytes: int | None = msgspec.field(default=None, name="MemoryBytes")
    pids: int | None = msgspec.field(default=None, name="Pids")


class ContainerCreateRequest(ContainerConfig, kw_only=True, frozen=True, omit_defaults=True):
    """What ``POST /containers/create`` takes: configuration, host part and networks."""

    host_config: HostConfig | None = msgspec.field(default=None, name="HostConfig")
    networking_config: NetworkingConfig | None = msgspec.field(
        default=None, name="NetworkingConfig"
    )


class ContainerUpdateRequest(Resources, kw_only=True, frozen=True, omit_defaults=True):
    """What ``POST /containers/{id}/update`` takes: resources and restart policy."""

    restart_policy: RestartPolicy | None = msgspec.field(default=None, name="RestartPolicy")


class ContainersPruneReport(Object, kw_only=True, frozen=True, omit_defaults=True):
    """What pruning containers removed, and the bytes it freed."""

    containers_deleted: list[str] | None = msgspec.field(default=None, name="ContainersDeleted")
    space_reclaimed: int | None = msgspec.field(default=None, name="SpaceReclaimed")
