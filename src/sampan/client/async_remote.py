"""A remote engine for asynchronous callers: the twin of :mod:`sampan.client.remote`.

The calls are made in a bounded pool of threads; HTTP itself is the same lean client.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Unpack

from sampan.client.async_containers import Containers, Execs
from sampan.client.async_services import Events, Images, Networks, System, Volumes
from sampan.client.endpoint import TlsFiles
from sampan.client.remote import DEFAULT_URL, RemoteEngine, connect
from sampan.client.threads import Threads
from sampan.wire.run import Completed, RunOptions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

    from sampan.build.arguments import BuildArguments, BuiltImage
    from sampan.build.recipe import Recipe


def connect_async(
    url: str = DEFAULT_URL,
    *,
    tls: TlsFiles | None = None,
    environment: Mapping[str, str] | None = None,
    api_version: str = "",
) -> AsyncRemoteEngine:
    """As :func:`sampan.client.remote.connect`, for asynchronous callers."""
    return AsyncRemoteEngine(
        connect(url, tls=tls, environment=environment, api_version=api_version)
    )


class AsyncRemoteEngine:
    """A running engine elsewhere; an asynchronous context manager."""

    def __init__(self, engine: RemoteEngine) -> None:
        self._engine = engine
        self._threads = Threads()
        self.containers = Containers(engine.containers, self._threads)
        self.execs = Execs(engine.execs, self._threads)
        self.images = Images(engine.images, self._threads)
        self.networks = Networks(engine.networks, self._threads)
        self.volumes = Volumes(engine.volumes, self._threads)
        self.events = Events(engine.events, self._threads)
        self.system = System(engine.system, self._threads)

    async def run(
        self,
        image: str,
        command: str | Sequence[str] | None = None,
        **options: Unpack[RunOptions],
    ) -> Completed:
        """Run a program to its end; see :meth:`sampan.client.remote.RemoteEngine.run`."""
        return await self._threads.run(self._engine.run, image, command, **options)

    async def build(
        self, source: Path | str | Recipe | None = None, **options: Unpack[BuildArguments]
    ) -> BuiltImage:
        """Build an image; see :meth:`sampan.client.remote.RemoteEngine.build`."""
        return await self._threads.run(self._engine.build, source, **options)

    async def close(self) -> None:
        """Close the connections; containers go on. Idempotent."""
        self._threads.close()
        self._engine.close()

    async def __aenter__(self) -> AsyncRemoteEngine:
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        await self.close()
