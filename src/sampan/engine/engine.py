"""The engine's door: opens the state, finds what runs, and offers the services."""

from __future__ import annotations

from types import TracebackType

from sampan.engine.config import EngineConfig
from sampan.engine.containers import Containers
from sampan.engine.events import Events
from sampan.engine.execs import Execs
from sampan.engine.images import Images
from sampan.engine.networks import Networks
from sampan.engine.system import System
from sampan.engine.volumes import Volumes


class Engine:
    """One container engine over one data root. Use :meth:`open`; an async context manager."""

    containers: Containers
    execs: Execs
    images: Images
    networks: Networks
    volumes: Volumes
    events: Events
    system: System
    config: EngineConfig

    @classmethod
    async def open(cls, config: EngineConfig) -> Engine:
        """Open (and lock) a data root, migrate its state, reconcile it with what runs.

        Raises Conflict when another engine has it open, Corrupt when the state cannot be read.
        """
        raise NotImplementedError

    async def close(self, *, stop_containers: bool = False) -> None:
        """Let go of everything; containers go on running unless ``stop_containers``."""
        raise NotImplementedError

    async def __aenter__(self) -> Engine:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()
