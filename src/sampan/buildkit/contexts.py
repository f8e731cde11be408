"""Build contexts: directories of clients', kept so that the next build sends what has changed.

A client names what is worth keeping by its session's shared key; one build at a time uses a kept
directory, another that wants the same meanwhile gets one of its own that is not kept. Kept
directories may be removed at any time nobody uses them.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

from sampan.build.kept import Kept
from sampan.buildkit import transfer
from sampan.buildkit.caller import Filter, files
from sampan.buildkit.sessions import Session, Sessions
from sampan.buildkit.status import Step
from sampan.engine.buildcontexts import KeptContexts
from sampan.engine.threads import Threads

__all__ = ["Contexts", "Kept"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contexts:
    """What clients send over their sessions, in the engine's kept directories."""

    kept: KeptContexts
    threads: Threads
    sessions: Sessions

    @contextlib.asynccontextmanager
    async def received(
        self,
        session: Session,
        wanted: Filter,
        hint: str,
        step: Step,
        what: str,
        other: str = "",
    ) -> AsyncIterator[Path]:
        """A directory with what the client has of ``wanted``, while the block lasts.

        ``other`` is the id of the session it is to come from instead of ``session``.
        ``hint`` tells apart what one client sends under one shared key; ``what`` is how the
        transfer is called in ``step``. Raises SampanError.
        """
        if other:
            session = await self.sessions.get(other)
        key = json.dumps([session.shared_key, wanted.name, hint])
        async with self.kept.directory(key if session.shared_key else "", wanted.name) as place:
            path = place / "content"
            label = f"transferring {what}:"

            def progress(size: int, done: bool) -> None:
                step.report(label, size, done=done)

            async with files(session, wanted) as stream:
                await transfer.receive(stream, path, self.threads.run_long, progress)
            yield path

    def temporary(self) -> AbstractAsyncContextManager[Path]:
        """An empty directory that is gone afterwards."""
        return self.kept.temporary()

    def list(self) -> list[Kept]:
        """The kept directories, least recently used first. Blocking."""
        return self.kept.list()

    def remove(self, identity: str) -> bool:
        """Remove a kept directory unless a build uses it. Blocking."""
        return self.kept.remove(identity)
