"""The engine embedded in ordinary Python: no daemon, no ``await``.

::

    with sampan.Engine() as engine:
        print(engine.run("debian:bookworm", ["echo", "hi"]).stdout)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Unpack

from sampan.build.arguments import BuildArguments, BuiltImage
from sampan.build.recipe import Recipe
from sampan.engine import blocking
from sampan.engine.config import EngineConfig
from sampan.engine.engine import Engine as AsyncEngine
from sampan.engine.loop import Loop
from sampan.engine.running import Completed, RunOptions


class Engine:
    """One engine over one data root, opened when made; a context manager.

    ``config`` says everything; ``data_root`` and ``exec_root`` are enough for most. Raises
    Conflict when another process has the data root open.
    """

    def __init__(
        self,
        config: EngineConfig | None = None,
        *,
        data_root: Path | str | None = None,
        exec_root: Path | str | None = None,
    ) -> None:
        default = config or EngineConfig()
        if data_root is not None or exec_root is not None:
            default = replace(
                default,
                data_root=Path(data_root) if data_root is not None else default.data_root,
                exec_root=Path(exec_root) if exec_root is not None else default.exec_root,
            )
        self._loop = Loop()
        try:
            self._engine = self._loop.call(AsyncEngine.open(default))
        except BaseException:
            self._loop.close()
            raise
        self._closed = False
        self.config = self._engine.config
        self.containers = blocking.Containers(self._engine.containers, self._loop)
        self.execs = blocking.Execs(self._engine.execs, self._loop)
        self.images = blocking.Images(self._engine.images, self._loop)
        self.builds = blocking.Builds(self._engine.builds, self._loop)
        self.networks = blocking.Networks(self._engine.networks, self._loop)
        self.volumes = blocking.Volumes(self._engine.volumes, self._loop)
        self.events = blocking.Events(self._engine.events, self._loop)
        self.system = blocking.System(self._engine.system, self._loop)

    def run(
        self,
        image: str,
        command: str | Sequence[str] | None = None,
        **options: Unpack[RunOptions],
    ) -> Completed:
        """Run a program to its end in a container of its own; see :meth:`AsyncEngine.run`."""
        return self._loop.call(self._engine.run(image, command, **options))

    def build(
        self, source: Path | str | Recipe | None = None, **options: Unpack[BuildArguments]
    ) -> BuiltImage:
        """Build an image; see :meth:`AsyncEngine.build`."""
        return self._loop.call(self._engine.build(source, **options))

    def close(self, *, stop_containers: bool = False) -> None:
        """Let go of everything; containers go on unless ``stop_containers``. Idempotent."""
        if not self._closed:
            self._closed = True
            try:
                self._loop.call(self._engine.close(stop_containers=stop_containers))
            finally:
                self._loop.close()

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
