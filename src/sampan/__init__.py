"""sampan: a complete container engine in Python.

::

    import sampan

    with sampan.Engine() as engine:  # embedded, without a daemon
        print(engine.run("debian:bookworm", ["echo", "hi"]).stdout)

Names are imported when first used, so that the command line stays fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sampan.engine.config import EngineConfig
    from sampan.engine.engine import Engine as AsyncEngine
    from sampan.engine.running import Completed, RunFailed
    from sampan.engine.sync import Engine
    from sampan.errors import SampanError

__version__ = "0.1.0"

__all__ = ["AsyncEngine", "Completed", "Engine", "EngineConfig", "RunFailed", "SampanError"]

_HOMES = {
    "AsyncEngine": ("sampan.engine.engine", "Engine"),
    "Completed": ("sampan.engine.running", "Completed"),
    "Engine": ("sampan.engine.sync", "Engine"),
    "EngineConfig": ("sampan.engine.config", "EngineConfig"),
    "RunFailed": ("sampan.engine.running", "RunFailed"),
    "SampanError": ("sampan.errors", "SampanError"),
}


def __getattr__(name: str) -> object:
    """PEP 562: import a public name where it is defined."""
    if name not in _HOMES:
        raise AttributeError(f"module 'sampan' has no attribute {name!r}")
    from importlib import import_module

    module, attribute = _HOMES[name]
    found = getattr(import_module(module), attribute)
    globals()[name] = found
    return found
