"""The containers an engine knows, in memory, and how a reference finds one."""

from __future__ import annotations

import asyncio
import bisect
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sampan.engine import links
from sampan.engine.record import Record, State
from sampan.errors import Conflict, InvalidParameter, NotFound
from sampan.model.idmap import IdMap
from sampan.runtime.client import ExitRecord, Monitor
from sampan.wire.container import ContainerWaitResponse

if TYPE_CHECKING:
    from sampan.engine.attaching import PendingAttachment
    from sampan.engine.fabric import Plug
    from sampan.engine.health import HealthMonitor
    from sampan.engine.logforwarding import Forwarder


@dataclass(slots=True, eq=False, kw_only=True)
class Run:
    """One run of a container: from its start to its exit.

    ``ended`` resolves when the program has ended, ``finished`` is set once the engine has dealt
    with that (network released, state stored). ``pidfd`` names the first process for ever.
    """

    monitor: Monitor
    events: socket.socket
    pidfd: int
    cgroup: str
    #: ids of its user namespace, None in the host's
    id_map: IdMap | None = None
    shared_memory: str = ""
    ended: asyncio.Future[ExitRecord]
    finished: asyncio.Event = field(default_factory=asyncio.Event)
    buffer: bytearray = field(default_factory=bytearray)


@dataclass(slots=True, eq=False, kw_only=True)
class Waiter:
    """Somebody waiting for a container; ``condition`` as the API names it."""

    condition: str
    result: asyncio.Future[ContainerWaitResponse]


@dataclass(slots=True, eq=False, kw_only=True)
class Container:
    """One container; only the event loop's thread touches it, but for ``mounting``, which a
    worker holds while it has the root of one that does not run mounted for writing.

    ``lock`` is held by whatever changes its status: start, the handling of an exit, removal.
    Waiting for an exit (stop) never holds it. ``endpoints`` are what it holds now, by network id.
    """

    record: Record
    state: State = field(default_factory=State)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    mounting: threading.Lock = field(default_factory=threading.Lock)
    run: Run | None = None
    #: everything of a run but its program, which waits to be let go
    prepared: Run | None = None
    endpoints: dict[str, Plug] = field(default_factory=dict)
    waiters: list[Waiter] = field(default_factory=list)
    pending: list[PendingAttachment] = field(default_factory=list)
    execs: set[str] = field(default_factory=set)
    health: HealthMonitor | None = None
    #: sends the log elsewhere, if it goes there
    forwarder: Forwarder | None = None
    backoff: asyncio.Task[None] | None = None
    backoff_delay: float = 0.0
    removed: bool = False
    #: a restart is under way: the exit in between calls for no policy and no automatic removal
    restarting: bool = False
    #: the next exit is followed by a start, whatever the restart policy says
    restart_wanted: bool = False

    @property
    def id(self) -> str:
        """The full id."""
        return self.record.id

    @property
    def name(self) -> str:
        """The name without a slash."""
        return self.record.name

    @property
    def live(self) -> Run | None:
        """The namespaces there are: of a program that runs or waits to be let go."""
        return self.run or self.prepared

    @property
    def monitor(self) -> Monitor:
        """The live monitor; Conflict when the container does not run."""
        if self.run is None:
            raise Conflict(f"container {self.id} is not running")
        return self.run.monitor


class ContainerTable:
    """All containers by id, id prefix and name. Names are reserved before a row exists."""

    def __init__(self) -> None:
        self._by_id: dict[str, Container] = {}
        self._ids: list[str] = []
        self.names: dict[str, str] = {}

    def __iter__(self) -> Iterator[Container]:
        return iter(list(self._by_id.values()))

    def __len__(self) -> int:
        return len(self._by_id)

    def __contains__(self, container_id: str) -> bool:
        return container_id in self._by_id

    def get(self, container_id: str) -> Container | None:
        """The container of exactly this id."""
        return self._by_id.get(container_id)

    def reserve(self, name: str, container_id: str) -> None:
        """Take ``name`` for a container about to be; Conflict in dockerd's words when taken."""
        owner = self.names.setdefault(name, container_id)
        if owner != container_id:
            raise Conflict(
                f'Conflict. The container name "/{name}" is already in use by container '
                f'"{owner}". You have to remove (or rename) that container to be able to reuse '
                "that name."
            )

    def release(self, name: str, container_id: str) -> None:
        """Give a name back, if ``container_id`` has it."""
        if self.names.get(name) == container_id:
            del self.names[name]

    def add(self, container: Container) -> None:
        """Make a container findable."""
        self._by_id[container.id] = container
        bisect.insort(self._ids, container.id)
        self.names[container.name] = container.id

    def discard(self, container: Container) -> None:
        """Forget a container and its name."""
        if self._by_id.pop(container.id, None) is not None:
            self._ids.pop(bisect.bisect_left(self._ids, container.id))
        self.release(container.name, container.id)

    def find(self, ref: str) -> Container:
        """The container ``ref`` names: id, then name, unique id prefix, ``/name/alias`` of a link.

        Raises NotFound, and InvalidParameter for an ambiguous prefix.
        """
        if not ref:
            raise InvalidParameter("container name or id must not be empty")
        found = self._by_id.get(ref)
        if found is None and (owner := self.names.get(ref.removeprefix("/"))) is not None:
            found = self._by_id.get(owner)
        if found is None:
            found = self._by_prefix(ref) or self._by_link(ref)
        if found is None:
            raise NotFound(f"No such container: {ref}")
        return found

    def _by_link(self, ref: str) -> Container | None:
        """What the container of a name calls by an alias (``docker run --link``)."""
        name, _, alias = ref.removeprefix("/").partition("/")
        owner = self._by_id.get(self.names.get(name, ""))
        if owner is None or not alias:
            return None
        return next((other for other, known in links.targets(self, owner) if known == alias), None)

    def _by_prefix(self, prefix: str) -> Container | None:
        index = bisect.bisect_left(self._ids, prefix)
        matches = [i for i in self._ids[index : index + 2] if i.startswith(prefix)]
        if len(matches) > 1:
            raise InvalidParameter(f"multiple IDs found with provided prefix: {prefix}")
        return self._by_id[matches[0]] if matches else None
