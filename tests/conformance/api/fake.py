"""An engine of values in memory, for what HTTP itself has to get right, and for faults on demand.

It answers only what the protocol tests ask for; anything else is an AttributeError, which is a
fault the server has to survive as well.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass, field

from sampan.engine.options import AttachOptions, LogsOptions
from sampan.errors import NotFound, NotModified, SampanError
from sampan.wire.container import (
    ContainerConfig,
    ContainerCreateRequest,
    ContainerCreateResponse,
    ContainerInspectResponse,
    ContainerState,
    ContainerSummary,
    ContainerWaitResponse,
    EndpointSettings,
    HostConfig,
    NetworkSettings,
)
from sampan.wire.exec import ExecStartRequest
from sampan.wire.image import ImageHistoryResponseItem, ImageInspect, ImageSummary
from sampan.wire.system import EventActor, EventMessage, SystemInfo, SystemVersion

IDENTITY = "0123456789ab" + "0" * 52


class FakeAttachment:
    """An attachment; :meth:`release` closes the test's end.

    One end of a socket pair is the client's stream, the other (``program``) the test's."""

    def __init__(self, *, tty: bool = False, stdin: bool = True) -> None:
        self.tty = tty
        self.stdin = stdin
        self.backlog: AsyncIterator[bytes] | None = None
        self.started = asyncio.Event()
        self.started.set()
        self.failure: SampanError | None = None
        self.closed = False
        self.detach_seen = False
        ours, self.program = socket.socketpair()
        ours.setblocking(False)
        self.program.setblocking(False)
        self._ours: socket.socket | None = ours

    def release(self) -> None:
        self.program.close()
        if self._ours is not None:
            self._ours.close()

    async def open(self) -> socket.socket | None:
        await self.started.wait()
        if self.failure is not None:
            raise self.failure
        ours, self._ours = self._ours, None
        return ours

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        before, key, _ = data.partition(b"\x10\x11")
        return before, bool(key)

    async def output_ended(self) -> None:
        pass

    async def detached(self) -> None:
        self.detach_seen = True

    async def aclose(self) -> None:
        self.closed = True
        if self._ours is not None:
            self._ours.close()


class FakeStream:
    """Chunks, then an end or an error."""

    tty = False

    def __init__(self, *chunks: bytes | Exception, forever: bool = False) -> None:
        self._chunks = chunks
        self._forever = forever
        self.closed = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            for chunk in self._chunks:
                if isinstance(chunk, Exception):
                    raise chunk
                yield chunk
            if self._forever:
                await asyncio.Event().wait()
        finally:
            self.closed.set()

    async def aclose(self) -> None:
        self.closed.set()


@dataclass
class FakeContainers:
    created: list[tuple[ContainerCreateRequest, str | None]] = field(default_factory=list)
    attachment: FakeAttachment | None = None
    attach_options: AttachOptions | None = None
    stream: FakeStream | None = None
    logs_options: LogsOptions | None = None
    exit: asyncio.Future[ContainerWaitResponse] | None = None
    list_arguments: dict[str, object] = field(default_factory=dict)
    started: list[str] = field(default_factory=list)
    start_gate: asyncio.Event = field(default_factory=asyncio.Event)

    async def create(
        self,
        body: ContainerCreateRequest,
        name: str | None,
        platform: str | None,
        *,
        client: object = None,
        read_only_recursive: bool = True,
        volume_labels: object = None,
    ) -> ContainerCreateResponse:
        self.created.append((body, name))
        return ContainerCreateResponse(id=IDENTITY)

    async def list(self, **arguments: object) -> list[ContainerSummary]:
        self.list_arguments = arguments
        return [ContainerSummary(id=IDENTITY, names=["/a"])]

    async def inspect(self, ref: str, *, size: bool = False) -> ContainerInspectResponse:
        if ref != "a":
            raise NotFound(f"No such container: {ref}")
        return ContainerInspectResponse(
            id=IDENTITY,
            name="/a",
            state=ContainerState(status="running"),
            config=ContainerConfig(labels={"team": "x"}),
            host_config=HostConfig(),
            network_settings=NetworkSettings(
                networks={
                    "bridge": EndpointSettings(ip_address="10.0.0.2", aliases=["a"]),
                    "own": EndpointSettings(aliases=["a"], endpoint_id="e"),
                    "other": EndpointSettings(aliases=["a"]),
                }
            ),
        )

    async def start(self, ref: str) -> None:
        if ref == "running":
            raise NotModified("already running")
        if ref == "slow":
            await self.start_gate.wait()
        self.started.append(ref)

    async def attach(self, ref: str, options: AttachOptions) -> FakeAttachment:
        self.attach_options = options
        assert self.attachment is not None
        return self.attachment

    async def logs(self, ref: str, options: LogsOptions) -> FakeStream:
        self.logs_options = options
        assert self.stream is not None
        return self.stream

    async def export(self, ref: str) -> AsyncIterator[bytes]:
        assert self.stream is not None
        return aiter(self.stream)

    async def wait(self, ref: str, condition: str) -> Awaitable[ContainerWaitResponse]:
        self.exit = asyncio.get_running_loop().create_future()
        return self.exit


@dataclass
class FakeExecs:
    attachment: FakeAttachment | None = None

    async def start(self, exec_id: str, body: ExecStartRequest) -> FakeAttachment | None:
        return None if body.detach else self.attachment


@dataclass
class FakeImages:
    progress: list[dict[str, object] | Exception] = field(default_factory=list)
    received: bytes = b""
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    auth: object = None
    pulled: dict[str, object] = field(default_factory=dict)

    async def inspect(self, ref: str, **_: object) -> ImageInspect:
        return ImageInspect(id="sha256:1", size=5, repo_tags=[ref])

    async def list(self, **_: object) -> list[ImageSummary]:
        return [ImageSummary(id="sha256:1", size=5)]

    async def history(self, ref: str, platform: str | None) -> list[ImageHistoryResponseItem]:
        step = "RUN |1 a=b /bin/sh -c echo $a # buildkit"
        return [ImageHistoryResponseItem(id="<missing>", created=0, created_by=step, size=0)]

    async def pull(self, ref: str, **arguments: object) -> AsyncIterator[dict[str, object]]:
        self.pulled = {"ref": ref, **arguments}
        return self._messages()

    async def load(
        self, body: AsyncIterator[bytes], **_: object
    ) -> AsyncIterator[dict[str, object]]:
        self.asked.set()

        async def messages() -> AsyncIterator[dict[str, object]]:
            async for chunk in body:
                self.received += chunk
            yield {"stream": f"{len(self.received)}"}

        return messages()

    async def _messages(self) -> AsyncIterator[dict[str, object]]:
        for message in self.progress:
            if isinstance(message, Exception):
                raise message
            yield message


@dataclass
class FakeEvents:
    queue: asyncio.Queue[EventMessage] = field(default_factory=asyncio.Queue)
    listening: int = 0
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def subscribe(
        self, since: float, until: float, filters: object
    ) -> AsyncIterator[EventMessage]:
        self.listening += 1

        async def messages() -> AsyncIterator[EventMessage]:
            try:
                while True:
                    yield await self.queue.get()
            finally:
                self.ended.set()

        return messages()

    def send(self, action: str) -> None:
        actor = EventActor(id=IDENTITY, attributes={"image": "bb"})
        self.queue.put_nowait(EventMessage(type="container", action=action, actor=actor, time=1))


class FakeSystem:
    async def info(self) -> SystemInfo:
        return SystemInfo(containers=3)

    async def version(self) -> SystemVersion:
        return SystemVersion(version="1")


class FakeEngine:
    def __init__(self) -> None:
        self.containers = FakeContainers()
        self.execs = FakeExecs()
        self.images = FakeImages()
        self.events = FakeEvents()
        self.system = FakeSystem()
