"""Builds that clients have asked for, and what came of their parts.

A build is one call of Control.Solve. A client that drives the frontend itself (buildx does) calls
LLBBridge.Solve for the result, which it then names to Return; Solve exports it. What a part came to
has an id, so that another build of the same client may start from it (bake's ``target:`` contexts).
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from sampan.build.assemble import Result
from sampan.build.outputs import Attest
from sampan.build.provenance import Invocation
from sampan.build.sourcepolicy import SourcePolicy
from sampan.buildkit.definitions import sourced
from sampan.buildkit.llb.graph import Graph
from sampan.buildkit.llb.solver import Solver
from sampan.buildkit.protocol import gateway_pb2 as gateway
from sampan.buildkit.protocol import ops_pb2 as ops
from sampan.buildkit.sessions import Session
from sampan.buildkit.status import Status
from sampan.errors import Conflict, NotFound

#: how long a call waits for the build it belongs to
WAIT_SECONDS = 5.0
_IDENTIFIER = "sampan-result://"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What one platform's build came to."""

    id: str
    result: Result
    platform: str
    invocation: Invocation


@dataclass(slots=True, kw_only=True, eq=False)
class Job:
    """One build: whose it is, what it has told, and what the client returned of it.

    ``whole`` tells that a cache of all stages is exported.
    """

    ref: str
    session: Session
    attributes: Mapping[str, str]
    entitlements: frozenset[str]
    status: Status
    uploaded: Path | None = None
    policy: SourcePolicy = field(default_factory=SourcePolicy)
    cache_imports: tuple[Mapping[str, str], ...] = ()
    started: float = field(default_factory=time.time)
    whole: bool = False
    returned: asyncio.Future[gateway.ReturnRequest] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    parts: dict[str, Part] = field(default_factory=dict)
    graphs: dict[str, Graph] = field(default_factory=dict)
    solver: Solver | None = None
    solving: asyncio.Lock = field(default_factory=asyncio.Lock)
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    attest: Attest = field(default_factory=Attest)
    inline_only: bool = False
    epoch: int | None = None

    def keep(self, result: Result, platform: str, invocation: Invocation) -> Part:
        """Give a part its id."""
        part = Part(id=uuid.uuid4().hex, result=result, platform=platform, invocation=invocation)
        self.parts[part.id] = part
        return part


@dataclass(slots=True)
class Jobs:
    """The builds that are going on."""

    _open: dict[str, Job] = field(default_factory=dict)
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def add(self, job: Job) -> None:
        """A build begins. Raises :class:`Conflict` for an id that is in use."""
        async with self._news:
            if job.ref in self._open:
                raise Conflict(f"job ID {job.ref} exists")
            self._open[job.ref] = job
            self._news.notify_all()

    def remove(self, job: Job) -> None:
        """A build is over."""
        self._open.pop(job.ref, None)
        job.status.close()

    async def get(self, ref: str) -> Job:
        """The build with an id, waited for; NotFound."""
        try:
            async with asyncio.timeout(WAIT_SECONDS), self._news:
                await self._news.wait_for(lambda: ref in self._open)
                return self._open[ref]
        except TimeoutError:
            raise NotFound(f"no such job {ref}") from None

    def running(self, ref: str) -> bool:
        """Whether a build with an id goes on."""
        return ref in self._open

    def part(self, identity: str) -> Part:
        """A part of any build that goes on; NotFound."""
        for job in self._open.values():
            if identity in job.parts:
                return job.parts[identity]
        raise NotFound(f"no such ref: {identity}")


class _Entry(Protocol):
    """A CacheOptionsEntry, of either service."""

    @property
    def Type(self) -> str: ...
    @property
    def Attrs(self) -> Mapping[str, str]: ...


def cache_entries(entries: Iterable[_Entry]) -> tuple[Mapping[str, str], ...]:
    """Caches as the engine takes them, ``type`` among their keys."""
    return tuple({"type": one.Type, **one.Attrs} for one in entries)


def definition(part: Part) -> ops.Definition:
    """A part as a graph of one source, which :func:`part_of` reads back."""
    return sourced(ops.SourceOp(identifier=f"{_IDENTIFIER}{part.id}"))


def part_of(found: ops.Definition) -> str:
    """The id of the part a graph stands for; "" when it is any other graph."""
    written = getattr(found, "def")
    if len(written) != 2:
        return ""
    return identity_of(ops.Op.FromString(written[0]).source)


def identity_of(source: ops.SourceOp) -> str:
    """The id of the part a source stands for; "" when it is any other source."""
    found = source.identifier
    return found.removeprefix(_IDENTIFIER) if found.startswith(_IDENTIFIER) else ""
