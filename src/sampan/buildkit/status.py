"""A build's news as BuildKit's vertexes, statuses, logs and warnings; kept for who asks later.

Any number of clients may follow a build from its beginning; each gets everything, in order. What
is kept is bounded: a vertex's output is clipped as BuildKit clips it, and transfers tell how far
they are a few times a second.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from google.protobuf.timestamp_pb2 import Timestamp

from sampan.build.progress import Vertex
from sampan.buildkit.protocol import control_pb2 as control
from sampan.buildkit.protocol import ops_pb2 as ops

#: bytes of output a vertex may tell
LOG_LIMIT = 2 << 20
#: seconds between two reports of one transfer
REPORT_SECONDS = 0.15
#: What a step that was stopped says, in the solver's word and in the one clients look for.
_CANCELLED_ERROR, _CANCELLED = "CancelledError", "context canceled"
_CLIPPED = b"\n[output clipped, log limit 2MiB reached]\n"


def now() -> Timestamp:
    """The present as protobuf has it."""
    found = Timestamp()
    found.FromNanoseconds(time.time_ns())
    return found


@dataclass(slots=True)
class _Known:
    message: control.Vertex
    logged: int = 0
    statuses: dict[str, control.VertexStatus] = field(default_factory=dict)
    reported: float = 0.0


class Status:
    """Everything one build has told. Implements :class:`sampan.build.progress.Progress`.

    ``ref`` is the build's id: it makes digests of vertexes this build's own.
    """

    def __init__(self, ref: str) -> None:
        self._ref = ref
        self._responses: list[control.StatusResponse] = []
        self._known: dict[str, _Known] = {}
        self._last: dict[str, str] = {}
        self._ended = False
        self._waiting: set[asyncio.Event] = set()
        self.failed = ""
        self.failed_line = 0
        self.warned = 0

    # Progress

    def started(self, vertex: Vertex) -> None:
        """See :class:`sampan.build.progress.Progress`."""
        if vertex.metadata:
            return
        known = self._vertex(vertex.id, vertex.name, stage=vertex.stage)
        known.message.started.CopyFrom(now())
        self._say(control.StatusResponse(vertexes=[known.message]))

    def log(self, vertex: Vertex, stream: int, data: bytes) -> None:
        """See :class:`sampan.build.progress.Progress`."""
        known = self._vertex(vertex.id, vertex.name, stage=vertex.stage)
        if known.logged > LOG_LIMIT:
            return
        known.logged += len(data)
        if known.logged > LOG_LIMIT:
            data = data[: len(data) - (known.logged - LOG_LIMIT)] + _CLIPPED
            known.logged = LOG_LIMIT + 1
        entry = control.VertexLog(
            vertex=known.message.digest, timestamp=now(), stream=stream, msg=data
        )
        self._say(control.StatusResponse(logs=[entry]))

    def completed(self, vertex: Vertex, *, cached: bool = False, error: str = "") -> None:
        """See :class:`sampan.build.progress.Progress`."""
        if error == _CANCELLED_ERROR:
            error = _CANCELLED
        elif error and not self.failed_line:
            self.failed_line = vertex.line
        if vertex.metadata:
            return
        known = self._vertex(vertex.id, vertex.name, stage=vertex.stage)
        if error and error != _CANCELLED and not self.failed:
            self.failed = known.message.digest
        self._complete(known, cached=cached, error=error)

    def warning(self, vertex: Vertex | None, message: str) -> None:
        """See :class:`sampan.build.progress.Progress`."""
        identity, name = (vertex.id, vertex.name) if vertex else ("internal/warnings", "warnings")
        known = self._vertex(identity, name, stage=vertex.stage if vertex else "")
        self.warn(known.message.digest, control.VertexWarning(short=message.encode(), level=1))

    # what is not part of the solver

    def warn(self, digest: str, warning: control.VertexWarning) -> None:
        """A warning as the protocol has it, of the vertex ``digest``."""
        warning.vertex = digest
        self.warned += 1
        self._say(control.StatusResponse(warnings=[warning]))

    def step(self, name: str, identity: str = "") -> Step:
        """A vertex that is no instruction, such as ``[internal] load build context``."""
        return Step(self, identity or f"internal/{name}", name)

    def digest(self, identity: str) -> str:
        """The digest a vertex has in this build."""
        text = f"{self._ref}\0{identity}".encode()
        return f"sha256:{hashlib.sha256(text).hexdigest()}"

    def announce(self, digest: str, name: str, inputs: Sequence[str]) -> None:
        """A vertex of a client's graph is known, by its own digest, before it starts."""
        if digest not in self._known:
            message = control.Vertex(digest=digest, name=name, inputs=inputs)
            self._known[digest] = _Known(message)
            self._say(control.StatusResponse(vertexes=[message]))

    def part_of(self, digest: str, name: str) -> Step:
        """What reports how far an announced vertex is, which others begin and end."""
        return Step(self, digest, name)

    def _vertex(self, identity: str, name: str, *, stage: str = "") -> _Known:
        known = self._known.get(identity)
        if known is None:
            digest = self.digest(identity)
            before = self._last.get(stage) if stage else None
            message = control.Vertex(
                digest=digest,
                name=name,
                inputs=[before] if before else [],
            )
            known = self._known[identity] = _Known(message)
            if stage:
                self._last[stage] = digest
        return known

    def begin(self, identity: str, name: str) -> str:
        """An internal vertex starts; returns its digest."""
        known = self._vertex(identity, name)
        known.message.started.CopyFrom(now())
        self._say(control.StatusResponse(vertexes=[known.message]))
        return known.message.digest

    def end(self, identity: str, *, error: str = "", cached: bool = False) -> None:
        """An internal vertex is done."""
        known = self._known[identity]
        if error and not self.failed:
            self.failed = known.message.digest
        self._complete(known, cached=cached, error=error)

    def _complete(self, known: _Known, *, cached: bool, error: str) -> None:
        message = known.message
        if cached:  # BuildKit shows no times for what was not done
            message.cached = True
        message.completed.CopyFrom(now())
        message.error = error
        self._say(control.StatusResponse(vertexes=[message]))

    def report(self, identity: str, name: str, current: int, total: int, *, done: bool) -> None:
        """How far a part of a vertex is, in bytes (0: nothing to count)."""
        known = self._known[identity]
        status = known.statuses.get(name)
        fresh = status is None
        if status is None:
            status = control.VertexStatus(
                ID=name, name=name, vertex=known.message.digest, started=now()
            )
            known.statuses[name] = status
        moment = time.monotonic()
        if not (fresh or done) and moment - known.reported < REPORT_SECONDS:
            return
        known.reported = moment
        status.current, status.total = current, total
        status.timestamp.CopyFrom(now())
        if done:
            status.completed.CopyFrom(now())
        self._say(control.StatusResponse(statuses=[status]))

    # followers

    def _say(self, response: control.StatusResponse) -> None:
        copy = control.StatusResponse()
        copy.CopyFrom(response)
        self._responses.append(copy)
        self._wake()

    def _wake(self) -> None:
        for event in self._waiting:
            event.set()

    def close(self) -> None:
        """No more news."""
        self._ended = True
        self._wake()

    @property
    def responses(self) -> Sequence[control.StatusResponse]:
        """Everything told so far, in order."""
        return self._responses

    @property
    def vertexes(self) -> list[control.Vertex]:
        """Every vertex as it is now."""
        return [known.message for known in self._known.values()]

    def counts(self) -> tuple[int, int, int]:
        """How many vertexes there are, are done, and were cached."""
        messages = [known.message for known in self._known.values()]
        done = sum(message.HasField("completed") for message in messages)
        return len(messages), done, sum(message.cached for message in messages)

    async def __aiter__(self) -> AsyncIterator[control.StatusResponse]:
        """All news from the beginning until the build is over."""
        event = asyncio.Event()
        self._waiting.add(event)
        position = 0
        try:
            while True:
                while position < len(self._responses):
                    batch = control.StatusResponse()
                    for response in self._responses[position : position + 64]:
                        batch.MergeFrom(response)
                        position += 1
                    yield batch
                if self._ended:
                    return
                event.clear()
                await event.wait()
        finally:
            self._waiting.discard(event)


class Step:
    """A vertex of the daemon's own work; a context manager that ends it, with its error if any."""

    def __init__(self, status: Status, identity: str, name: str) -> None:
        self._status = status
        self._identity = identity
        self._name = name
        self.digest = status.digest(identity)
        self.cached = False

    def __enter__(self) -> Step:
        self._status.begin(self._identity, self._name)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        text = "" if error is None else str(error) or type(error).__name__
        if isinstance(error, asyncio.CancelledError):
            text = _CANCELLED
        self._status.end(self._identity, error=text, cached=self.cached)

    def report(self, name: str, current: int = 0, total: int = 0, *, done: bool = False) -> None:
        """How far a part of it is."""
        self._status.report(self._identity, name, current, total, done=done)

    def part(self, name: str) -> Callable[[], None]:
        """A part without a size begins; call the result when it is done."""
        self.report(name)
        return lambda: self.report(name, done=True)


def lines(start: int, end: int) -> list[ops.Range]:
    """Lines of a Dockerfile, both included: clients want a range for each."""
    return [
        ops.Range(start=ops.Position(line=line), end=ops.Position(line=line))
        for line in range(start, end + 1)
    ]
