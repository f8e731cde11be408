"""What an engine is opened with: directories, limits and defaults, all explicit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sampan.build.gcpolicy import Settings as BuildGarbage
from sampan.build.retention import Retention
from sampan.errors import InvalidParameter
from sampan.kernel.cgroup import systemd


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressPool:
    """A pool new networks take their subnet from: ``base`` cut into subnets of ``size`` bits."""

    base: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ulimit:
    """A default resource limit of containers (``nofile``, soft and hard value)."""

    name: str
    soft: int
    hard: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalRuntime:
    """An OCI runtime driven by its command line (``--add-runtime name=path``)."""

    path: str
    args: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageGarbage:
    """When images nobody uses are removed; without an age and a size they never are.

    ``max_age`` is seconds since the last use, ``max_size`` bytes all images may take together;
    the newest ``keep_last`` images of a repository stay.
    """

    max_age: float | None = None
    max_size: int | None = None
    keep_last: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """Everything an :class:`~sampan.engine.engine.Engine` needs to know; no environment is read.

    ``data_root`` keeps what survives a reboot, ``exec_root`` (on a tmpfs) what does not. Sizes are
    bytes, times seconds.
    """

    data_root: Path = Path("/var/lib/sampan")
    exec_root: Path = Path("/run/sampan")
    #: a path for the driver cgroupfs, a slice for systemd; empty for /sampan or system.slice
    cgroup_parent: str = ""
    cgroup_driver: str = "cgroupfs"
    default_runtime: str = "sampan"
    runtimes: Mapping[str, ExternalRuntime] = field(default_factory=dict)
    storage_driver: str = "auto"
    log_driver: str = "json-file"
    log_options: Mapping[str, str] = field(default_factory=dict)
    bridge: str = "sampan0"
    bridge_address: str = ""
    fixed_cidr: str = ""
    default_gateway: str = ""
    bridge_ipv6: bool = False
    bridge_address6: str = ""
    fixed_cidr6: str = ""
    default_gateway6: str = ""
    bridge_mtu: int = 1500
    bridge_enabled: bool = True
    icc: bool = True
    ip_forward: bool = True
    ip_masquerade: bool = True
    publish_address: str = "0.0.0.0"
    address_pools: tuple[AddressPool, ...] = ()
    #: options of networks created without them, by driver
    network_options: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    dns: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    host_gateway_address: str = ""
    firewall: bool = True
    respect_host: bool = False
    system_bus: str = "/run/dbus/system_bus_socket"
    default_ulimits: tuple[Ulimit, ...] = ()
    default_shm_size: int = 64 << 20
    default_ipc_mode: str = "private"
    default_cgroupns_mode: str = ""
    default_init: bool = False
    no_new_privileges: bool = False
    userns_remap: str = ""
    seccomp_profile: str = ""
    selinux_enabled: bool = False
    labels: tuple[str, ...] = ()
    insecure_registries: tuple[str, ...] = ()
    registry_mirrors: tuple[str, ...] = ()
    max_concurrent_downloads: int = 3
    max_concurrent_uploads: int = 5
    max_download_attempts: int = 5
    #: files; empty for this engine's own or else the machine's (see ``registrysettings``)
    registries_conf: str = ""
    signature_policy: str = ""
    #: file with the private key (PEM) that signs every push; empty for none
    signing_key: str = ""
    #: pulls bring what refers to an image in its registry: attached signatures, SBOMs
    keep_referrers: bool = False
    http_proxy: str = field(default="", repr=False)
    https_proxy: str = field(default="", repr=False)
    no_proxy: str = ""
    shutdown_timeout: int = 15
    debug: bool = False
    experimental: bool = False
    worker_threads: int = 16
    event_history: int = 256
    image_gc: ImageGarbage = field(default_factory=ImageGarbage)
    build_gc: BuildGarbage = field(default_factory=BuildGarbage)
    build_history: Retention = field(default_factory=Retention)
    cdi_spec_dirs: tuple[str, ...] = ("/etc/cdi", "/var/run/cdi")
    plugin_directories: tuple[Path, ...] = (
        Path("/run/docker/plugins"),
        Path("/etc/docker/plugins"),
        Path("/usr/lib/docker/plugins"),
    )

    def __post_init__(self) -> None:
        if not self.data_root.is_absolute() or not self.exec_root.is_absolute():
            raise InvalidParameter("data root and exec root must be absolute paths")
        if self.cgroup_driver not in ("cgroupfs", "systemd"):
            raise InvalidParameter(f"invalid cgroup driver: {self.cgroup_driver!r}")
        if self.cgroup_driver == "systemd" and self.cgroup_parent:
            systemd.slice_path(self.cgroup_parent)
        if self.default_ipc_mode not in ("private", "shareable"):
            raise InvalidParameter(f"invalid default IPC mode: {self.default_ipc_mode!r}")
        if self.default_cgroupns_mode not in ("", "private", "host"):
            raise InvalidParameter(
                f"invalid default cgroup namespace mode: {self.default_cgroupns_mode!r}"
            )

    @property
    def containers(self) -> Path:
        """The directory of the containers' own files (hosts, resolv.conf, logs)."""
        return self.data_root / "containers"

    @property
    def exec_containers(self) -> Path:
        """The directory of the containers' live facts (sockets, pids, exit records)."""
        return self.exec_root / "containers"

    @property
    def pins(self) -> Path:
        """Mount points of what running containers have of volumes."""
        return self.exec_root / "pins"
