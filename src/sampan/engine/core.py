"""What the engine's services share: configuration, state, stores and tables, all explicit."""

from __future__ import annotations

import asyncio
import logging
import posixpath
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from sampan.content import ContentStore
from sampan.engine import capabilities as caps
from sampan.engine.config import EngineConfig
from sampan.engine.counts import Counts
from sampan.engine.events import Events
from sampan.engine.hostdevices import HostDevices
from sampan.engine.idranges import IdRanges
from sampan.engine.imagetable import ImageTable
from sampan.engine.ingests import Ingests
from sampan.engine.networkrecord import NetworkRecord
from sampan.engine.record import Record, replace_state
from sampan.engine.record import State as ContainerState
from sampan.engine.spec import Host
from sampan.engine.state import State, Statement
from sampan.engine.table import Container, ContainerTable
from sampan.engine.threads import Tasks, Threads
from sampan.image import Unpacker
from sampan.kernel.cgroup import systemd
from sampan.kernel.facts import Facts, memory_nodes
from sampan.model import oci
from sampan.model.digest import Digest
from sampan.model.idmap import IdMap
from sampan.registry.client import Registry
from sampan.runtime import seccomp_profile
from sampan.runtime.client import Launcher
from sampan.runtime.requests import DEFAULT_PARENT
from sampan.snapshot import Snapshotter

if TYPE_CHECKING:
    from sampan.engine.execs import Exec
    from sampan.engine.fabric import Fabric
    from sampan.engine.tracing import Tracing
    from sampan.engine.volumestore import VolumeStore

T = TypeVar("T")

log = logging.getLogger("sampan.engine")


@dataclass(slots=True, eq=False, kw_only=True)
class Core:
    """The parts every operation works with. One per engine; the loop's thread owns the tables."""

    config: EngineConfig
    engine_id: str
    facts: Facts
    #: text of the profile containers get by default: "" the built-in one, or ``unconfined``
    seccomp: str
    host: Host
    state: State
    threads: Threads
    tasks: Tasks
    events: Events
    content: ContentStore
    snapshots: Snapshotter
    unpacker: Unpacker
    #: set when layers were committed that are not on the disk yet
    unsettled: asyncio.Event
    images: ImageTable
    volumes: VolumeStore
    fabric: Fabric
    launcher: Launcher
    registry: Registry
    ingests: Ingests
    ids: IdRanges
    #: ids of containers that ask for no user namespace of their own (``--userns-remap``)
    remap: IdMap | None = None
    #: who is told of spans of what is done, if anybody
    tracing: Tracing | None = None
    containers: ContainerTable = field(default_factory=ContainerTable)
    #: who else needs blobs and layers: each tells which (the build cache, for one)
    pins: list[Callable[[], set[Digest]]] = field(default_factory=list)
    execs: dict[str, Exec] = field(default_factory=dict)
    counts: Counts = field(default_factory=Counts)
    random: random.Random = field(default_factory=random.SystemRandom)
    closing: asyncio.Event = field(default_factory=asyncio.Event)

    def new_id(self) -> str:
        """64 random hexadecimal digits, not all of the first twelve decimal.

        A short id must not be mistaken for a number (dockerd's stringid does the same).
        """
        while True:
            found = f"{self.random.getrandbits(256):064x}"
            if not found[:12].isdecimal():
                return found

    async def traced(self, name: str, work: Awaitable[T], **attributes: str) -> T:
        """Do ``work``, as a span of that name where spans are told of."""
        if self.tracing is None:
            return await work
        with self.tracing.span(name, attributes):
            return await work

    def pinned(self) -> set[Digest]:
        """Blobs and layers (by chain id) that must stay although no image needs them."""
        return {digest for pin in self.pins for digest in pin()}

    def exec_directory(self, container_id: str) -> Path:
        """Where a container's live facts are."""
        return self.config.exec_containers / container_id

    def directory(self, container_id: str) -> Path:
        """Where a container's own files are."""
        return self.config.containers / container_id

    def cgroup(self, record: Record) -> str:
        """The container's cgroup path in every hierarchy. Raises InvalidParameter."""
        if self.config.cgroup_driver == "systemd":
            slice_name, unit = systemd.place(self.cgroups_path(record), record.id)
            return f"{systemd.slice_path(slice_name)}/{unit}"
        return self.cgroups_path(record)

    def cgroups_path(self, record: Record) -> str:
        """``linux.cgroupsPath``, as the cgroup driver takes it."""
        parent = record.host_config.cgroup_parent or self.config.cgroup_parent
        if self.config.cgroup_driver == "systemd":
            return f"{parent}:sampan:{record.id}"
        clean = posixpath.normpath(f"/{parent}").strip("/")  # a ".." leads no further than the root
        return f"/{clean or DEFAULT_PARENT.strip('/')}/{record.id}"

    def change(self, container: Container, **changes: object) -> Statement:
        """Set fields of a container's state in memory; returns the statement that stores it."""
        container.state = replace_state(container.state, **changes)
        return update_state(container)

    def publish(self, container: Container, action: str, **attributes: str) -> None:
        """A container event with the attributes dockerd gives it: labels, image, name."""
        record = container.record
        shown = dict(record.config.labels or {})
        shown["image"] = record.image
        shown["name"] = record.name
        shown.update(attributes)
        self.events.publish("container", action, record.id, shown)

    def publish_network(
        self, network_id: str, record: NetworkRecord, container: str, action: str
    ) -> None:
        """A network event about a container."""
        attributes = {"container": container, "name": record.name, "type": record.driver}
        self.events.publish("network", action, network_id, attributes)


def encode(document: object) -> bytes:
    """A struct as stored in a row."""
    return msgspec.json.encode(document)


def insert_container(container: Container) -> Statement:
    """The row of a new container."""
    return (
        "INSERT INTO containers (id, name, record, state) VALUES (?, ?, ?, ?)",
        (
            container.id,
            container.name,
            encode(container.record),
            encode(container.state),
        ),
    )


def update_record(container: Container) -> Statement:
    """Store a changed record."""
    return (
        "UPDATE containers SET name = ?, record = ? WHERE id = ?",
        (container.name, encode(container.record), container.id),
    )


def update_state(container: Container) -> Statement:
    """Store a changed state."""
    return (
        "UPDATE containers SET state = ? WHERE id = ?",
        (encode(container.state), container.id),
    )


def delete_container(container: Container) -> Statement:
    """Remove a container's row, its endpoints and addresses with it."""
    return "DELETE FROM containers WHERE id = ?", (container.id,)


def decode_container(record: bytes, state: bytes) -> tuple[Record, ContainerState]:
    """What a row says."""
    return (
        msgspec.json.decode(record, type=Record),
        msgspec.json.decode(state, type=ContainerState),
    )


def probe_host(facts: Facts, cpus: int) -> Host:
    """What this host contributes to specs."""
    return Host(
        devices=HostDevices(),
        capabilities=tuple(name for name in caps.ALL if name in facts.capabilities),
        recursive_read_only=facts.kernel >= (5, 12),
        cgroup_v2="cpu" in facts.layout.controllers and facts.layout.mode == "v2",
        cpus=cpus,
        memory_nodes=memory_nodes(),
    )


@lru_cache(maxsize=64)
def seccomp_filter(
    profile: str, granted: tuple[str, ...], kernel: tuple[int, int], machine: str
) -> oci.Seccomp:
    """The filter of a profile (text, "" for the default one) for these capabilities.

    The value is shared: callers never change it.
    """
    parsed = seccomp_profile.parse(profile) if profile else seccomp_profile.load_default()
    return seccomp_profile.resolve(
        parsed, capabilities=frozenset(granted), kernel=kernel, machine=machine
    )
