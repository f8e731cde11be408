"""The whole of it for one engine: what the API's ``/grpc`` and ``/session`` hand connections to."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sampan.buildkit.blobs import Blobs
from sampan.buildkit.builder import Builder
from sampan.buildkit.cache import CacheView
from sampan.buildkit.contexts import Contexts
from sampan.buildkit.control import Control
from sampan.buildkit.exporters import Exporters
from sampan.buildkit.gateway import Bridge
from sampan.buildkit.graphs import Graphs
from sampan.buildkit.jobs import Jobs
from sampan.buildkit.olddoor import OldDoor
from sampan.buildkit.recording import Recorder
from sampan.buildkit.records import Records
from sampan.buildkit.rpc import Channel, Server
from sampan.buildkit.sessions import METHOD_HEADER, Session, Sessions
from sampan.engine.engine import Engine

__all__ = ["METHOD_HEADER", "BuildKit"]


@dataclass(frozen=True, slots=True)
class BuildKit:
    """BuildKit's services in front of one engine."""

    sessions: Sessions
    server: Server
    old: OldDoor

    @classmethod
    def of(cls, engine: Engine) -> BuildKit:
        """The services of an engine; there should be one of it per engine."""
        builds = engine.builds
        sessions, jobs = Sessions(), Jobs()
        contexts = Contexts(kept=builds.contexts, threads=builds.threads, sessions=sessions)
        graphs = Graphs(core=engine.core, builds=builds, contexts=contexts, jobs=jobs)
        builder = Builder(
            core=engine.core, builds=builds, contexts=contexts, jobs=jobs, graphs=graphs
        )
        records = Records(
            engine.core.config.data_root / "build" / "records",
            engine.core.config.build_history,
            builds.threads,
        )
        content = engine.core.content
        control = Control(
            engine=engine,
            sessions=sessions,
            jobs=jobs,
            builder=builder,
            exporters=Exporters(engine=engine),
            cache=CacheView(builds=builds),
            records=records,
            recorder=Recorder(records=records, content=content, threads=builds.threads),
        )
        bridge = Bridge(jobs=jobs, builder=builder, workers=control.workers)
        blobs = Blobs(records=records, store=content, threads=builds.threads)
        server = Server((control.service(), bridge.service(), blobs.service()))
        return cls(sessions, server, OldDoor(control=control))

    def control(self) -> asyncio.Protocol:
        """The protocol of a connection on which the client calls us."""
        return self.server.protocol()

    async def session(self, headers: Mapping[str, str], methods: Sequence[str]) -> Session:
        """Take note of a session described by its request's headers.

        Its connection is for ``session.channel.protocol``; call :meth:`end` when it is over.
        Raises InvalidParameter.
        """
        session = Session.from_headers(headers, tuple(methods), Channel())
        await self.sessions.add(session)
        return session

    def end(self, session: Session) -> None:
        """A session's connection is gone."""
        self.sessions.remove(session)
        session.channel.shut()
