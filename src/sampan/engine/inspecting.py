"""Containers as the API shows them: inspect and list (pure; reads nothing but memory)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import msgspec

from sampan.engine import clock
from sampan.engine.config import EngineConfig
from sampan.engine.fabric import Fabric, Plug, dns_names
from sampan.engine.lifecycle import Status
from sampan.engine.record import MountRecord, Record, State
from sampan.engine.table import Container
from sampan.model.mount import Mount
from sampan.network.publish import port_map
from sampan.network.relay import relays
from sampan.wire.container import (
    ContainerConfig,
    ContainerInspectResponse,
    ContainerState,
    ContainerSummary,
    ContainerSummaryHealth,
    ContainerSummaryHostConfig,
    ContainerSummaryNetworkSettings,
    DriverData,
    EndpointSettings,
    Health,
    HostConfig,
    MountPoint,
    NetworkSettings,
    PortBinding,
    PortSummary,
    RootFSStorage,
    RootFSStorageSnapshot,
    Storage,
)


def inspect(
    container: Container,
    config: EngineConfig,
    fabric: Fabric,
    *,
    root: Sequence[Mount] = (),
    links: list[str] | None = None,
    size_rw: int | None = None,
    size_root: int | None = None,
) -> ContainerInspectResponse:
    """``GET /containers/{id}/json``; ``root`` are the mounts of the container's snapshot.

    ``links`` are its legacy links by the names of now.
    """
    layers = layer_directories(root)
    record = container.record
    directory = config.containers / record.id
    return ContainerInspectResponse(
        id=record.id,
        created=clock.rfc3339(record.created),
        path=record.path,
        args=record.args,
        state=state(container),
        image=record.image_id,
        resolv_conf_path=str(directory / "resolv.conf"),
        hostname_path=str(directory / "hostname"),
        hosts_path=str(directory / "hosts"),
        log_path=log_path(record),
        name=f"/{record.name}",
        restart_count=container.state.restart_count,
        driver=record.driver,
        platform=record.platform,
        image_manifest_descriptor=record.image_manifest,
        mount_label="",
        process_label="",
        app_armor_profile="",
        exec_ids=sorted(container.execs) or None,
        host_config=host_config(msgspec.structs.replace(record.host_config, links=links)),
        graph_driver=DriverData(name=record.driver, data=layers),
        storage=Storage(root_fs=RootFSStorage(snapshot=RootFSStorageSnapshot(name=record.driver))),
        size_rw=size_rw,
        size_root_fs=size_root,
        mounts=[mount_point(mount) for mount in record.mounts],
        config=container_config(record.config, record.image),
        network_settings=network_settings(container, fabric),
    )


def layer_directories(root: Sequence[Mount]) -> dict[str, str]:
    """The directories of an overlay root under dockerd's names; empty for another kind."""
    options = dict(option.partition("=")[::2] for mount in root[:1] for option in mount.options)
    names = {"lowerdir": "LowerDir", "upperdir": "UpperDir", "workdir": "WorkDir"}
    return {name: options[key] for key, name in names.items() if key in options}


def log_path(record: Record) -> str:
    """What a client may know of where the log is: only the json-file's format is public."""
    log = record.host_config.log_config
    return record.log_path if log is not None and log.type == "json-file" else ""


def state(container: Container) -> ContainerState:
    """The ``State`` object."""
    now = container.state
    return ContainerState(
        status=shown_status(now),
        running=now.alive or now.status == Status.RESTARTING,
        paused=now.status == Status.PAUSED,
        restarting=now.status == Status.RESTARTING,
        oom_killed=now.oom_killed,
        dead=now.status == Status.DEAD,
        pid=now.pid,
        exit_code=now.exit_code,
        error=now.error,
        started_at=clock.rfc3339(now.started_at),
        finished_at=clock.rfc3339(now.finished_at),
        health=health(container),
    )


def shown_status(state: State) -> Status:
    """The status in Docker's words, which know no containers that are set up only."""
    return Status.CREATED if state.status == Status.INITIALIZED else state.status


def health(container: Container) -> Health | None:
    """The health report, None without a health check."""
    return container.health.report() if container.health is not None else None


def mount_point(mount: MountRecord) -> MountPoint:
    """One entry of ``Mounts``."""
    volume = mount.type == "volume"
    return MountPoint(
        type=mount.type,
        name=mount.name if volume else None,
        source=mount.source,
        destination=mount.destination,
        driver=mount.driver or None,
        mode=mount.mode,
        rw=mount.writable,
        propagation=mount.propagation,
    )


_HOST_ZERO = HostConfig(
    binds=None,
    container_id_file="",
    port_bindings={},
    auto_remove=False,
    volume_driver="",
    privileged=False,
    publish_all_ports=False,
    readonly_rootfs=False,
    uts_mode="",
    userns_mode="",
    pid_mode="",
    cgroup="",
    cgroup_parent="",
    oom_score_adj=0,
    cpu_shares=0,
    memory=0,
    nano_cpus=0,
    blkio_weight=0,
    blkio_weight_device=[],
    blkio_device_read_bps=[],
    blkio_device_write_bps=[],
    blkio_device_read_i_ops=[],
    blkio_device_write_i_ops=[],
    cpu_period=0,
    cpu_quota=0,
    cpu_realtime_period=0,
    cpu_realtime_runtime=0,
    cpuset_cpus="",
    cpuset_mems="",
    devices=[],
    memory_reservation=0,
    memory_swap=0,
    oom_kill_disable=False,
    ulimits=[],
    cpu_count=0,
    cpu_percent=0,
    io_maximum_i_ops=0,
    io_maximum_bandwidth=0,
)


def host_config(config: HostConfig) -> HostConfig:
    """The host's half with the zero values dockerd writes for what is unset."""
    return _filled(config, _HOST_ZERO)


_CONFIG_ZERO = ContainerConfig(
    hostname="", domainname="", user="", env=[], volumes=None, working_dir="", labels={}
)


def container_config(config: ContainerConfig, image: str) -> ContainerConfig:
    """The portable half as dockerd shows it."""
    filled = _filled(config, _CONFIG_ZERO)
    return msgspec.structs.replace(
        filled,
        image=image,
        volumes=filled.volumes or None,
        exposed_ports=filled.exposed_ports or None,
        labels=filled.labels or {},
    )


S = TypeVar("S", bound=msgspec.Struct)


def _filled(value: S, zero: S) -> S:
    changes = {
        name: default
        for name in value.__struct_fields__
        if getattr(value, name) is None and (default := getattr(zero, name)) is not None
    }
    return msgspec.structs.replace(value, **changes)


def network_settings(container: Container, fabric: Fabric) -> NetworkSettings:
    """The ``NetworkSettings`` object."""
    record = container.record
    running = container.state.alive
    return NetworkSettings(
        sandbox_id=record.id if running else "",
        sandbox_key=f"/proc/{container.state.pid}/ns/net" if running else "",
        ports=_port_map(container) if running else {},
        networks=endpoints(container, fabric),
    )


def _port_map(container: Container) -> dict[str, list[PortBinding] | None]:
    exposed = [_with_protocol(port) for port in container.record.config.exposed_ports or {}]
    plugs = [plug for plug in container.endpoints.values() if plug.endpoint.ports]
    return port_map(
        [port for plug in plugs for port in plug.endpoint.ports],
        exposed,
        ipv4=any(plug.endpoint.ipv4 is not None for plug in plugs),
        ipv6=any(plug.endpoint.ipv6 is not None for plug in plugs),
        relayed=any(relays(plug.network.spec) for plug in plugs),
    )


def _with_protocol(port: str) -> str:
    return port if "/" in port else f"{port}/tcp"


def endpoints(container: Container, fabric: Fabric) -> dict[str, EndpointSettings]:
    """The container's networks by name, with addresses where it is connected now."""
    plugged = {plug.network.name: plug for plug in container.endpoints.values()}
    found: dict[str, EndpointSettings] = {}
    for name, settings in container.record.networks.items():
        network = next((n for n in fabric.networks.values() if name in (n.name, n.id)), None)
        shown = network.name if network is not None else name
        found[shown] = endpoint_settings(
            settings,
            network.id if network is not None else "",
            plugged.get(shown),
            container,
        )
    return found


def endpoint_settings(
    settings: EndpointSettings, network_id: str, plug: Plug | None, container: Container
) -> EndpointSettings:
    """One endpoint as inspect shows it."""
    endpoint = plug.endpoint if plug is not None else None
    ipv4 = endpoint.ipv4 if endpoint is not None else None
    ipv6 = endpoint.ipv6 if endpoint is not None else None
    gateways = {
        subnet.prefix.version: str(subnet.gateway)
        for subnet in (plug.network.spec.subnets if plug is not None else ())
        if subnet.gateway is not None
    }
    return EndpointSettings(
        ipam_config=settings.ipam_config,
        links=settings.links,
        mac_address=endpoint.mac if endpoint is not None else settings.mac_address or "",
        aliases=settings.aliases,
        driver_opts=settings.driver_opts,
        gw_priority=settings.gw_priority or 0,
        network_id=network_id,
        endpoint_id=endpoint.endpoint_id if endpoint is not None else "",
        gateway=gateways.get(4, "") if ipv4 is not None else "",
        ip_address=str(ipv4.ip) if ipv4 is not None else "",
        ip_prefix_len=ipv4.network.prefixlen if ipv4 is not None else 0,
        ipv6_gateway=gateways.get(6, "") if ipv6 is not None else "",
        global_ipv6_address=str(ipv6.ip) if ipv6 is not None else "",
        global_ipv6_prefix_len=ipv6.network.prefixlen if ipv6 is not None else 0,
        dns_names=dns_names(container.record, settings),
    )


def summary(
    container: Container,
    fabric: Fabric,
    now: int,
    image: str,
    *,
    further_names: Sequence[str] = (),
    size_rw: int | None = None,
    size_root: int | None = None,
) -> ContainerSummary:
    """One entry of ``GET /containers/json``; ``image`` as shown, id when its name moved on."""
    record = container.record
    report = health(container)
    return ContainerSummary(
        id=record.id,
        names=[f"/{record.name}", *further_names],
        image=image,
        image_id=record.image_id,
        image_manifest_descriptor=record.image_manifest,
        command=" ".join(_quoted(word) for word in (record.path, *record.args)),
        created=record.created // 1_000_000_000,
        ports=port_summary(container),
        size_rw=size_rw,
        size_root_fs=size_root,
        labels=record.config.labels or {},
        state=shown_status(container.state),
        status=status_text(container, now),
        host_config=ContainerSummaryHostConfig(
            network_mode=record.host_config.network_mode,
            annotations=record.host_config.annotations or None,
        ),
        network_settings=ContainerSummaryNetworkSettings(networks=endpoints(container, fabric)),
        mounts=[mount_point(mount) for mount in record.mounts],
        health=ContainerSummaryHealth(
            status=report.status if report else "none",
            failing_streak=report.failing_streak if report else 0,
        ),
    )


def _quoted(word: str) -> str:
    return f"'{word}'" if " " in word else word


def port_summary(container: Container) -> list[PortSummary]:
    """Exposed and published ports, published ones with their host address."""
    if not container.state.alive:
        return []
    found: list[PortSummary] = []
    for key, bindings in _port_map(container).items():
        number, _, protocol = key.partition("/")
        if not bindings:
            found.append(PortSummary(private_port=int(number), type=protocol))
        for binding in bindings or []:
            found.append(
                PortSummary(
                    ip=binding.host_ip,
                    private_port=int(number),
                    public_port=int(binding.host_port or 0),
                    type=protocol,
                )
            )
    return found


def status_text(container: Container, now: int) -> str:
    """``Up 5 minutes (healthy)``, ``Exited (0) 3 hours ago``, as dockerd words it."""
    current = container.state
    match current.status:
        case Status.RUNNING:
            text = f"Up {human_duration((now - current.started_at) / 1e9)}"
            report = health(container)
            if report is not None:
                word = "health: starting" if report.status == "starting" else report.status
                text += f" ({word})"
            return text
        case Status.PAUSED:
            return f"Up {human_duration((now - current.started_at) / 1e9)} (Paused)"
        case Status.RESTARTING:
            ago = human_duration((now - current.finished_at) / 1e9)
            return f"Restarting ({current.exit_code}) {ago} ago"
        case Status.REMOVING:
            return "Removal In Progress"
        case Status.DEAD:
            return "Dead"
        case Status.CREATED:
            return "Created"
        case Status.INITIALIZED:
            return "Initialized"
        case Status.EXITED:
            ago = human_duration((now - current.finished_at) / 1e9)
            return f"Exited ({current.exit_code}) {ago} ago"


_SPANS: tuple[tuple[float, float, str], ...] = (
    (60 * 60 * 36, 60 * 60, "hours"),
    (60 * 60 * 24 * 7 * 2, 60 * 60 * 24, "days"),
    (60 * 60 * 24 * 30 * 2, 60 * 60 * 24 * 7, "weeks"),
    (60 * 60 * 24 * 365 * 2, 60 * 60 * 24 * 30, "months"),
)


def human_duration(seconds: float) -> str:
    """A rough duration in words (github.com/docker/go-units HumanDuration)."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    if whole < 60:
        return f"{whole} seconds"
    minutes = whole // 60
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    hours = int(whole / 3600 + 0.5)
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    for limit, unit, name in _SPANS[1:]:
        if hours * 3600 < limit:
            return f"{int(hours * 3600 / unit)} {name}"
    return f"{int(hours / 24 / 365)} years"


def labels_of(container: Container) -> Mapping[str, str]:
    """A container's labels."""
    return container.record.config.labels or {}
