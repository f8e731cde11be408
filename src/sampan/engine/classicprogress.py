"""A build's news as the objects of Docker's classic builder."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from sampan.build.progress import Vertex
from sampan.build.tools import StepFailed
from sampan.engine.imageflows import Progress


def step_failure(error: StepFailed) -> Progress:
    """A failed RUN as the classic builder ends its stream; the CLI exits with its code."""
    message = f"The command '{error.command}' returned a non-zero code: {error.code}"
    return {"errorDetail": {"code": error.code, "message": message}, "error": message}


@dataclass(slots=True)
class _Step:
    """What is to be told of one step, which has not been yet."""

    texts: list[str] = field(default_factory=list)
    done: bool = False


class ClassicProgress:
    """A build's news as the classic builder's objects, in an unbounded-by-clients queue.

    Steps are told in their order, whichever are worked on at once: one that is ahead waits to be
    told. ``image_of`` tells the short id of the image a FROM names, "" for an earlier stage. The
    other steps make no images, so no id is told of them.

    The bound is the build's own output; a client that does not read is dropped by the server.
    """

    def __init__(self, *, quiet: bool, image_of: Callable[[str], str]) -> None:
        self._queue: asyncio.Queue[Progress | None] = asyncio.Queue()
        self._quiet = quiet
        self._image_of = image_of
        self._steps: dict[int, _Step] = {}
        self._next = 1
        self._failed = 0

    def started(self, vertex: Vertex) -> None:
        """See :class:`sampan.build.progress.Progress`."""
        if vertex.step:
            self._tell(vertex, f"Step {vertex.step}/{vertex.steps} : {vertex.instruction}\n")

    def log(self, vertex: Vertex, stream: int, data: bytes) -> None:
        """See :class:`sampan.build.progress.Progress`."""
        text = data.decode(errors="replace")
        # (red, as the classic builder's)
        self._tell(vertex, f"\x1b[91m{text}\x1b[0m" if stream == 2 else text)

    def completed(self, vertex: Vertex, *, cached: bool = False, error: str = "") -> None:
        """See :class:`sampan.build.progress.Progress`."""
        words = vertex.instruction.split()
        if error:
            self._failed = self._failed or vertex.step
            return
        if cached:
            self._tell(vertex, " ---> Using cache\n")
        elif words[:1] == ["FROM"] and (image := self._image_of(words[1])):
            self._tell(vertex, f" ---> {image}\n")
        if vertex.step:
            self._steps.setdefault(vertex.step, _Step()).done = True
            self._flush()

    def warning(self, vertex: Vertex | None, message: str) -> None:
        """See :class:`sampan.build.progress.Progress`."""
        self._say(f"[Warning] {message}\n")

    def _tell(self, vertex: Vertex, text: str) -> None:
        if not vertex.step:
            self._say(text)
            return
        self._steps.setdefault(vertex.step, _Step()).texts.append(text)
        self._flush()

    def _flush(self) -> None:
        """Tell the step whose turn it is, and those after it if it is done."""
        while (step := self._steps.get(self._next)) is not None:
            self._say("".join(step.texts))
            step.texts.clear()
            if not step.done:
                break
            del self._steps[self._next]
            self._next += 1

    def _say(self, text: str) -> None:
        if text and not self._quiet:
            self._queue.put_nowait({"stream": text})

    def end(self) -> None:
        """No more news; where a step failed, those after it are left out."""
        for number in sorted(self._steps):
            if not self._failed or number <= self._failed:
                self._say("".join(self._steps[number].texts))
        self._queue.put_nowait(None)

    async def __aiter__(self) -> AsyncIterator[Progress]:
        while (progress := await self._queue.get()) is not None:
            yield progress
