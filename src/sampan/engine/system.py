"""The system service: what the engine is, what it can do and how much room it takes."""

from __future__ import annotations

import os
import platform
import threading
import time
from pathlib import Path

import msgspec

from sampan import __version__
from sampan.engine import clock, imageusage, logconfig, runtimes, transfer
from sampan.engine.builds import Builds
from sampan.engine.cdi import Registry
from sampan.engine.config import EngineConfig
from sampan.engine.core import Core
from sampan.engine.images import Images
from sampan.engine.inspecting import summary
from sampan.engine.lifecycle import Status
from sampan.engine.sizes import container_sizes
from sampan.engine.statistics import memory_total
from sampan.engine.volumes import Volumes
from sampan.wire.container import ContainersDiskUsage
from sampan.wire.image import AuthConfig, AuthResponse, BuildCacheDiskUsage, ImagesDiskUsage
from sampan.wire.system import (
    Commit,
    DeviceInfo,
    FirewallInfo,
    IndexInfo,
    PluginsInfo,
    RegistryServiceConfig,
    Runtime,
    SwarmInfo,
    SystemDataUsage,
    SystemInfo,
    SystemInfoDefaultAddressPool,
    SystemVersion,
    SystemVersionComponent,
    SystemVersionPlatform,
)
from sampan.wire.volume import VolumesDiskUsage

API_VERSION = "1.55"
MIN_API_VERSION = "1.24"


class System:
    """Information about one engine."""

    def __init__(self, core: Core, images: Images, volumes: Volumes, builds: Builds) -> None:
        self._core = core
        self._images = images
        self._volumes = volumes
        self._builds = builds

    async def info(self) -> SystemInfo:
        """Counts, limits and features, read from the kernel and the state."""
        return msgspec.structs.replace(
            self._limits(),
            **self._counts(),
            **self._host(),
            **self._settings(),
            **self._offers(),
            discovered_devices=await self._devices(),
            security_options=_security_options(self._core),
            system_time=clock.rfc3339(clock.now()),
            warnings=[],
        )

    def _counts(self) -> dict[str, object]:
        """How many there are of what."""
        core = self._core
        states = [container.state.status for container in core.containers]
        running, paused = states.count(Status.RUNNING), states.count(Status.PAUSED)
        return {
            "containers": len(states),
            "containers_running": running,
            "containers_paused": paused,
            "containers_stopped": len(states) - running - paused,
            "images": len(core.images),
            "n_fd": len(os.listdir("/proc/self/fd")),
            "n_goroutines": threading.active_count(),
            "n_events_listener": core.events.listeners,
        }

    def _limits(self) -> SystemInfo:
        """What the kernel's control groups can limit."""
        facts = self._core.facts
        controllers, legacy = facts.layout.controllers, facts.layout.mode != "v2"
        cpu = "cpu" in controllers
        return SystemInfo(
            memory_limit="memory" in controllers,
            swap_limit=_swap_limit(self._core),
            cpu_cfs_period=cpu,
            cpu_cfs_quota=cpu,
            cpu_shares=cpu,
            cpu_set="cpuset" in controllers,
            pids_limit="pids" in controllers,
            oom_kill_disable=legacy and "memory" in controllers,
            cgroup_driver=self._core.config.cgroup_driver,
            cgroup_version="1" if legacy else "2",
        )

    def _host(self) -> dict[str, object]:
        """The machine, its operating system, and the way out of it."""
        facts, config = self._core.facts, self._core.config
        return {
            "http_proxy": _without_password(config.http_proxy),
            "https_proxy": _without_password(config.https_proxy),
            "no_proxy": config.no_proxy,
            "ipv4_forwarding": _flag("/proc/sys/net/ipv4/ip_forward"),
            "kernel_version": facts.release,
            "operating_system": _os_release().get("PRETTY_NAME", "Linux"),
            "os_version": _os_release().get("VERSION_ID", ""),
            "os_type": "linux",
            "architecture": facts.machine,
            "ncpu": self._core.host.cpus,
            "mem_total": memory_total(),
            "name": os.uname().nodename,
        }

    def _settings(self) -> dict[str, object]:
        """What this engine was told, and what it offers."""
        core, config = self._core, self._core.config
        unknown = Commit(id="")
        return {
            "id": core.engine_id,
            "driver": core.snapshots.name,
            "driver_status": [["Data Root", str(config.data_root)]],
            "docker_root_dir": str(config.data_root),
            "debug": config.debug,
            "logging_driver": config.log_driver,
            "index_server_address": "https://index.docker.io/v1/",
            "registry_config": _registries(config),
            "labels": list(config.labels),
            "experimental_build": config.experimental,
            "server_version": __version__,
            "default_runtime": config.default_runtime,
            "swarm": SwarmInfo(
                node_id="",
                node_addr="",
                local_node_state="inactive",
                control_available=False,
                error="",
            ),
            "live_restore_enabled": True,
            "isolation": "",
            "init_binary": "sampan-init",
            "containerd_commit": unknown,
            "runc_commit": unknown,
            "init_commit": unknown,
            "product_license": "",
            "default_address_pools": [
                SystemInfoDefaultAddressPool(base=pool.base, size=pool.size)
                for pool in config.address_pools
            ]
            or None,
            "firewall_backend": FirewallInfo(driver="nftables" if config.firewall else "none"),
        }

    def _offers(self) -> dict[str, object]:
        """What containers can have: drivers, runtimes, devices."""
        config = self._core.config
        return {
            "plugins": PluginsInfo(
                volume=["local"],
                network=["bridge", "cni", "host", "ipvlan", "macvlan", "ns", "null", "overlay"],
                log=logconfig.drivers(),
            ),
            "runtimes": {
                "sampan": Runtime(path="sampan-runtime"),
                **{
                    name: Runtime(path=runtime.path, runtime_args=list(runtime.args) or None)
                    for name, runtime in runtimes.available(config).items()
                },
            },
            "cdi_spec_dirs": list(config.cdi_spec_dirs),
        }

    async def _devices(self) -> list[DeviceInfo] | None:
        """The devices that spec files describe."""
        core = self._core
        found = await core.threads.run(Registry.load, core.config.cdi_spec_dirs)
        return [DeviceInfo(source="cdi", id=name) for name in sorted(found.specs)] or None

    async def version(self) -> SystemVersion:
        """Versions of the engine, its API and the kernel."""
        machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(
            self._core.facts.machine, self._core.facts.machine
        )
        details = {
            "ApiVersion": API_VERSION,
            "Arch": machine,
            "Experimental": str(self._core.config.experimental).lower(),
            "GoVersion": f"python{platform.python_version()}",
            "KernelVersion": self._core.facts.release,
            "MinAPIVersion": MIN_API_VERSION,
            "Os": "linux",
            "PythonVersion": platform.python_version(),
        }
        return SystemVersion(
            platform=SystemVersionPlatform(name="sampan"),
            components=[
                SystemVersionComponent(name="Engine", version=__version__, details=details)
            ],
            version=__version__,
            api_version=API_VERSION,
            min_api_version=MIN_API_VERSION,
            git_commit="",
            go_version=f"python{platform.python_version()}",
            os="linux",
            arch=machine,
            kernel_version=self._core.facts.release,
            experimental=self._core.config.experimental or None,
        )

    async def df(self, types: list[str] | None = None, *, verbose: bool = True) -> SystemDataUsage:
        """Disk usage of images, containers, volumes and build cache, in bytes."""
        wanted = set(types or ("image", "container", "volume", "build-cache"))
        return SystemDataUsage(
            image_usage=await self._image_usage(verbose) if "image" in wanted else None,
            container_usage=await self._container_usage(verbose) if "container" in wanted else None,
            volume_usage=await self._volume_usage(verbose) if "volume" in wanted else None,
            build_cache_usage=await self._build_usage(verbose) if "build-cache" in wanted else None,
        )

    async def _build_usage(self, verbose: bool) -> BuildCacheDiskUsage:
        """What images have as well counts for those, as in docker's own sums."""
        records = await self._builds.usage()
        own = [record for record in records if not record.shared]
        return BuildCacheDiskUsage(
            active_count=sum(1 for record in records if record.in_use),
            total_count=len(records),
            reclaimable=sum(record.size or 0 for record in own if not record.in_use),
            total_size=sum(record.size or 0 for record in own),
            items=[msgspec.to_builtins(record) for record in records] if verbose else None,
        )

    async def _image_usage(self, verbose: bool) -> ImagesDiskUsage:
        """What images share is counted once."""
        core = self._core
        summaries = await self._images.list(all=True, shared_size=True)
        used = {container.record.image_id for container in core.containers}
        total, needed = await core.threads.run_long(imageusage.measure, core)
        return ImagesDiskUsage(
            active_count=sum(1 for item in summaries if item.id in used),
            total_count=len(summaries),
            reclaimable=total - needed,
            total_size=total,
            items=[msgspec.to_builtins(item) for item in summaries] if verbose else None,
        )

    async def _container_usage(self, verbose: bool) -> ContainersDiskUsage:
        core = self._core
        items, total, reclaimable, active = [], 0, 0, 0
        for container in core.containers:
            written, root = await container_sizes(core, container)
            total += written
            if container.state.alive:
                active += 1
            else:
                reclaimable += written
            shown = summary(
                container,
                core.fabric,
                clock.now(),
                container.record.image,
                size_rw=written,
                size_root=root,
            )
            items.append(msgspec.to_builtins(shown))
        return ContainersDiskUsage(
            active_count=active,
            total_count=len(items),
            reclaimable=reclaimable,
            total_size=total,
            items=items if verbose else None,
        )

    async def _volume_usage(self, verbose: bool) -> VolumesDiskUsage:
        volumes = await self._volumes.usage()
        sizes = [
            (v.usage_data.size or 0, v.usage_data.ref_count or 0) for v in volumes if v.usage_data
        ]
        return VolumesDiskUsage(
            active_count=sum(1 for _, references in sizes if references),
            total_count=len(volumes),
            reclaimable=sum(size for size, references in sizes if not references),
            total_size=sum(size for size, _ in sizes),
            items=[msgspec.to_builtins(volume) for volume in volumes] if verbose else None,
        )

    async def ping(self) -> float:
        """Seconds since the Unix epoch: the engine's loop turns."""
        return time.time()

    async def auth(self, body: AuthConfig) -> AuthResponse:
        """Check credentials with a registry; Unauthorized when refused."""
        return await transfer.login(self._core.registry, body)


def _flag(path: str) -> bool:
    try:
        return Path(path).read_text().strip() == "1"
    except OSError:
        return False


def _swap_limit(core: Core) -> bool:
    directory = core.facts.layout.directory("memory", "/")
    if core.facts.layout.mode == "v2":
        return "memory" in core.facts.layout.controllers
    return directory is not None and os.path.exists(f"{directory}/memory.memsw.limit_in_bytes")


def _os_release() -> dict[str, str]:
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}


def _without_password(url: str) -> str:
    """A proxy's address, user and password covered as dockerd covers them."""
    head, at, host = url.rpartition("@")
    scheme, separator, _ = head.rpartition("://")
    return f"{scheme}{separator}xxxxx:xxxxx@{host}" if at else url


def _registries(config: EngineConfig) -> RegistryServiceConfig:
    mirrors = [mirror.rstrip("/") + "/" for mirror in config.registry_mirrors]
    hub = IndexInfo(name="docker.io", mirrors=mirrors, secure=True, official=True)
    ranges = [host for host in config.insecure_registries if "/" in host]
    return RegistryServiceConfig(
        insecure_registry_cid_rs=[*dict.fromkeys([*ranges, "::1/128", "127.0.0.0/8"])],
        index_configs={
            "docker.io": hub,
            **{
                host: IndexInfo(name=host, mirrors=[], secure=False, official=False)
                for host in config.insecure_registries
                if host not in ranges
            },
        },
        mirrors=mirrors,
    )


def _security_options(core: Core) -> list[str]:
    found = []
    if core.facts.seccomp:
        profile = core.config.seccomp_profile
        found.append(f"name=seccomp,profile={'builtin' if not profile else profile[:32]}")
    if core.remap is not None:
        found.append("name=userns")
    if core.host.cgroup_v2:
        found.append("name=cgroupns")
    return found
