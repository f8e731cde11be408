"""Engines that use a plugin which runs in a process of its own (:mod:`tests.pluginserver`)."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from sampan.engine.config import EngineConfig
from tests.engines import World

REPOSITORY = Path(__file__).parents[3]


@dataclass
class PluginWorld(World):
    """A world whose engines look for plugins in a directory of its own."""

    @property
    def config(self) -> EngineConfig:
        return replace(super().config, plugin_directories=(self.plugins,))

    @property
    def plugins(self) -> Path:
        return self.root / "plugins"

    @property
    def calls(self) -> list[str]:
        """What the plugin was asked, without the greetings."""
        lines = (self.root / "served" / "calls").read_text().splitlines()
        return [line for line in lines if not line.startswith("Plugin.Activate")]


@contextmanager
def plugin(world: PluginWorld, name: str = "other") -> Iterator[subprocess.Popen[bytes]]:
    """A plugin process (:mod:`tests.pluginserver`) at ``<name>.sock``."""
    world.plugins.mkdir(exist_ok=True)
    served = world.root / "served"
    served.mkdir(exist_ok=True)
    socket = world.plugins / f"{name}.sock"
    socket.unlink(missing_ok=True)
    with subprocess.Popen(
        [sys.executable, "-m", "tests.pluginserver", str(socket), str(served)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        try:
            yield process
        finally:
            process.kill()
