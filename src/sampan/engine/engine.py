"""The engine's door: opens the state, finds what runs, and offers the services."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import stat
import zlib
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import fields
from pathlib import Path
from types import TracebackType
from typing import Unpack

from sampan.build.arguments import BuildArguments, BuiltImage
from sampan.build.recipe import Recipe
from sampan.content.store import FileStore
from sampan.engine import (
    building,
    collecting,
    imagepolicy,
    imageremoval,
    preparing,
    recovery,
    running,
    settling,
    subids,
)
from sampan.engine.builds import Builds
from sampan.engine.config import EngineConfig
from sampan.engine.containers import Containers
from sampan.engine.core import Core, log, probe_host
from sampan.engine.events import Events
from sampan.engine.execs import Execs
from sampan.engine.fabric import Fabric
from sampan.engine.idranges import IdRanges
from sampan.engine.images import Images
from sampan.engine.imagetable import ImageTable
from sampan.engine.ingests import Garbage, Ingests
from sampan.engine.networks import Networks
from sampan.engine.registrysettings import registry_settings
from sampan.engine.running import Completed, RunOptions
from sampan.engine.state import State
from sampan.engine.system import System
from sampan.engine.threads import Tasks, Threads
from sampan.engine.volumes import Volumes
from sampan.engine.volumestore import VolumeStore
from sampan.errors import Conflict, InvalidParameter, SampanError
from sampan.image import Unpacker
from sampan.kernel.facts import Facts, probe
from sampan.network.drivers import Drivers
from sampan.network.journal import Journal
from sampan.network.model import HostPolicy
from sampan.network.remoteipam import RemoteAddresses
from sampan.network.resolver import Resolver
from sampan.plugin.client import Plugins
from sampan.registry.client import Registry
from sampan.runtime import seccomp_profile
from sampan.runtime.client import Launcher
from sampan.snapshot import Snapshotter
from sampan.snapshot.copy import CopySnapshotter
from sampan.snapshot.overlay import OverlaySnapshotter

_RELOADABLE = frozenset(
    {
        "debug",
        "default_runtime",
        "image_gc",
        "insecure_registries",
        "keep_referrers",
        "labels",
        "max_concurrent_downloads",
        "max_concurrent_uploads",
        "max_download_attempts",
        "registries_conf",
        "registry_mirrors",
        "runtimes",
        "shutdown_timeout",
        "signature_policy",
        "signing_key",
    }
)


class Engine:
    """One container engine over one data root. Use :meth:`open`; an async context manager."""

    def __init__(self, core: Core, resources: AsyncExitStack) -> None:
        self._core = core
        self._resources = resources
        self.config: EngineConfig = core.config
        self.events: Events = core.events
        self.containers = Containers(core)
        self.execs = Execs(core)
        self.images = Images(core)
        self.networks = Networks(core)
        self.volumes = Volumes(core)
        self.builds = Builds(core, self.images)
        self.system = System(core, self.images, self.volumes, self.builds)

    @property
    def core(self) -> Core:
        """What the services share; for packages that extend the engine (builds)."""
        return self._core

    @classmethod
    async def open(cls, config: EngineConfig) -> Engine:
        """Open (and lock) a data root, migrate its state, reconcile it with what runs.

        Raises Conflict when another engine has it open, Corrupt when the state cannot be read,
        Unsupported when this kernel lacks what every container needs.
        """
        async with AsyncExitStack() as undo:
            core = await _assemble(config, undo)
            undo.push_async_callback(core.tasks.cancel)
            await recovery.restore(core)
            undo.push_async_callback(settling.settle, core)
            engine = cls(core, undo.pop_all())
            core.tasks.spawn(collecting.collect(core), "garbage collection")
            core.tasks.spawn(imagepolicy.keep(core), "image garbage collection")
            core.tasks.spawn(settling.keep(core), "settling of layers")
            return engine

    async def run(
        self,
        image: str,
        command: str | Sequence[str] | None = None,
        **options: Unpack[RunOptions],
    ) -> Completed:
        """Run a program to its end in a container of its own, which is then removed.

        A missing image is pulled. Raises NotFound, CommandNotFound, RunFailed (with ``check``),
        TimeoutError; the container is gone in any case.
        """
        return await running.run(self, image, command, options)

    async def build(
        self, source: Path | str | Recipe | None = None, **options: Unpack[BuildArguments]
    ) -> BuiltImage:
        """Build an image: ``source`` is a directory with a Dockerfile, an address, or a recipe.

        Raises DockerfileError, StepFailed, and what bases, copies and registries raise; nothing of
        a failed build stays but its cache.
        """
        return await building.build(self, source, options)

    async def reload(self, config: EngineConfig) -> None:
        """Take over what may change while running: labels, runtimes, registries, limits.

        Raises InvalidParameter when something else differs (it needs a restart).
        """
        changed = {
            field.name
            for field in fields(config)
            if getattr(config, field.name) != getattr(self.config, field.name)
        }
        if fixed := sorted(changed - _RELOADABLE):
            raise InvalidParameter(f"{', '.join(fixed)} cannot be changed without a restart")
        core = self._core
        # Always: what may have changed is in the files the configuration names.
        core.registry.settings = registry_settings(config)
        core.config = self.config = config
        core.images.changed.set()  # the policy for images may be another
        attributes = {"name": os.uname().nodename, "labels": json.dumps(list(config.labels))}
        core.events.publish("daemon", "reload", core.engine_id, attributes)

    async def close(self, *, stop_containers: bool = False) -> None:
        """Let go of everything; containers go on running unless ``stop_containers``."""
        core = self._core
        if stop_containers:
            await self._stop_all()
        core.closing.set()  # no restart begins any more
        core.events.close()
        await core.tasks.cancel()
        for container in core.containers:
            if container.health is not None:
                container.health.stop()
            preparing.let_be(container)
            if container.run is not None:
                run, container.run = container.run, None
                asyncio.get_running_loop().remove_reader(run.events.fileno())
                run.events.close()
                run.monitor.close()
                os.close(run.pidfd)
        self.builds.close()
        await self._resources.aclose()

    async def _stop_all(self) -> None:
        async def stop(name: str) -> None:
            try:
                await self.containers.stop(name, timeout=self.config.shutdown_timeout)
            except SampanError as error:
                log.warning("stopping container %s: %s", name[:12], error.message)

        async with asyncio.TaskGroup() as group:
            for container in self._core.containers:
                if container.live is not None:
                    group.create_task(stop(container.id))

    async def __aenter__(self) -> Engine:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()


async def _assemble(config: EngineConfig, undo: AsyncExitStack) -> Core:
    """Make the parts, in the order they need each other."""
    threads = Threads(config.worker_threads)
    undo.callback(threads.close)
    await threads.run(_directories, config)
    undo.callback(os.close, await threads.run(_lock, config.data_root))
    state = State(config.data_root / "state.db")
    undo.callback(state.close)
    facts = await threads.run(probe)
    remap = await threads.run(subids.remapping, config.userns_remap)
    content = FileStore(config.data_root / "content")
    snapshots = await threads.run(_snapshotter, config, facts)
    plugins = Plugins(config.plugin_directories)
    fabric = await threads.run(_fabric, config, plugins, undo)
    launcher = await threads.run(Launcher.spawn, config.exec_root)
    undo.callback(launcher.close)
    unsettled = asyncio.Event()
    registry = Registry(registry_settings(config))
    undo.push_async_callback(registry.close)
    events = Events(config.event_history)

    async def erase(garbage: Sequence[Garbage]) -> None:
        await threads.run_long(imageremoval.erase, core, garbage)

    core = Core(
        config=config,
        engine_id=_engine_id(state),
        facts=facts,
        seccomp=await threads.run(_seccomp, config),
        host=probe_host(facts, len(os.sched_getaffinity(0))),
        state=state,
        threads=threads,
        tasks=Tasks(_report),
        events=events,
        content=content,
        snapshots=snapshots,
        unpacker=_unpacker(content, snapshots, unsettled),
        unsettled=unsettled,
        images=ImageTable(content, lambda text: registry.settings.registries.candidates(text)),
        volumes=VolumeStore(config.data_root / "volumes", config.pins, plugins),
        fabric=fabric,
        launcher=launcher,
        registry=registry,
        ingests=Ingests(erase),
        ids=IdRanges(await threads.run(subids.pool, config.data_root), remap),
        remap=remap,
    )
    return core


def _unpacker(content: FileStore, snapshots: Snapshotter, unsettled: asyncio.Event) -> Unpacker:
    """One that sets ``unsettled`` when a layer comes; it is at first, for what was there before."""
    loop = asyncio.get_running_loop()
    unsettled.set()

    def committed() -> None:
        loop.call_soon_threadsafe(unsettled.set)

    return Unpacker(content, snapshots, committed=committed)


def _seccomp(config: EngineConfig) -> str:
    """The text of the daemon's seccomp profile, "" for the built-in one, or ``unconfined``."""
    if config.seccomp_profile in ("", "unconfined"):
        return config.seccomp_profile
    try:
        text = Path(config.seccomp_profile).read_text()
    except OSError as error:
        raise InvalidParameter(
            f"opening seccomp profile ({config.seccomp_profile}) failed: {error.strerror}"
        ) from error
    seccomp_profile.parse(text)
    return text


def _report(name: str, error: BaseException) -> None:
    log.error("%s failed: %s", name, error, exc_info=error)


def _directories(config: EngineConfig) -> None:
    for path, mode in (
        (config.data_root, 0o710),
        (config.exec_root, 0o711),
        (config.containers, 0o710),
        (config.exec_containers, 0o711),
    ):
        path.mkdir(parents=True, exist_ok=True, mode=mode)
    # Containers and builds leave set-user-id programs there (dockerd closes its root as well).
    mode = stat.S_IMODE(config.data_root.stat().st_mode)
    config.data_root.chmod(mode & ~0o007)


def _lock(data_root: Path) -> int:
    """A descriptor holding the data root's lock; Conflict when another engine holds it."""
    descriptor = os.open(data_root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise Conflict(f"another engine has {data_root} open") from None
    return descriptor


def _snapshotter(config: EngineConfig, facts: Facts) -> Snapshotter:
    root = config.data_root / "snapshots"
    overlay = "overlay" in facts.filesystems and config.storage_driver != "copy"
    return OverlaySnapshotter(root) if overlay else CopySnapshotter(root)


def instance(config: EngineConfig) -> str:
    """What marks this engine's links and tables among other engines' on the host."""
    if config.data_root == EngineConfig().data_root:
        return "sampan"
    return f"sampan-{zlib.crc32(str(config.data_root).encode()):08x}"


def _fabric(config: EngineConfig, plugins: Plugins, undo: AsyncExitStack) -> Fabric:
    """Network drivers and resolver, in this thread's (the host's) network namespace."""
    journals = config.data_root / "network-endpoints"
    drivers = Drivers(
        instance(config),
        policy=HostPolicy(
            rules=config.firewall,
            respect=config.respect_host,
            forwarding=config.ip_forward,
            system_bus=config.system_bus,
        ),
        plugins=plugins,
        journals=journals,
    )
    undo.callback(drivers.close)
    resolver = Resolver()
    undo.callback(resolver.close)
    return Fabric(drivers, resolver, RemoteAddresses(plugins, Journal(journals / "ipam")))


def _engine_id(state: State) -> str:
    """This data root's own id, made once."""
    rows = state.read("SELECT value FROM settings WHERE key = 'id'")
    if rows:
        return str(rows[0][0])
    made = os.urandom(16).hex()
    state.submit(("INSERT INTO settings (key, value) VALUES ('id', ?)", (made,))).result()
    return made
