"""A build's news as the objects of Docker's classic builder."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from sampan.build.progress import Vertex
from sampan.build.tools import StepFailed
from sampan.engine.imageflows import Progress


def step_failure(error: StepFailed) -> Progress:
    """A failed RUN as the classic builder ends its stream; the CLI exits with its code."""
    message = f"The command '{error.command}' returned a non-zero code: {error.code}"
    return {"errorDetail": {"code": error.code, "message": message}, "error": message}


class ClassicProgress:
    """A build's news as the classic builder's objects, in an unbounded-by-clients queue.

    The bound is the build's own output; a client that does not read is dropped by the server.
    """

    def __init__(self, *, quiet: bool) -> None:
        self._queue: asyncio.Queue[Progress | None] = asyncio.Queue()
        self._quiet = quiet

    def started(self, vertex: Vertex) -> None:
        """See :class:`sampan.build.progress.Progress`."""
        self._say(f"Step {vertex.step}/{vertex.steps} : {vertex.instruction}\n")

    def log(self, vertex: Vertex, stream: int, data: bytes) -> None:
        """See :class:`sampan.build.progress.Progress`."""
        text = data.decode(errors="replace")
        self._say(f"\x1b[91m{text}\x1b[0m" if stream == 2 else text)  # as the classic builder's

    def completed(self, vertex: Vertex, *, cached: bool = False, error: str = "") -> None:
        """See :class:`sampan.build.progress.Progress`."""
        if cached:
            self._say(" ---> Using cache\n")

    def warning(self, vertex: Vertex | None, message: str) -> None:
        """See :class:`sampan.build.progress.Progress`."""
        self._say(f"[Warning] {message}\n")

    def _say(self, text: str) -> None:
        if not self._quiet:
            self._queue.put_nowait({"stream": text})

    def end(self) -> None:
        """No more news."""
        self._queue.put_nowait(None)

    async def __aiter__(self) -> AsyncIterator[Progress]:
        while (progress := await self._queue.get()) is not None:
            yield progress
