"""sampan: a complete container engine in Python.

::

    import sampan

    with sampan.Engine() as engine:  # embedded, without a daemon
        print(engine.run("debian:bookworm", ["echo", "hi"]).stdout)

    with sampan.connect() as engine:  # the daemon's, with the same methods
        print(engine.run("debian:bookworm", ["echo", "hi"]).stdout)

Names are imported when first used, so that the command line stays fast.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.build.recipe import Recipe, from_
    from sampan.client.async_remote import AsyncRemoteEngine, connect_async
    from sampan.client.remote import RemoteEngine, connect
    from sampan.engine.config import EngineConfig
    from sampan.engine.engine import Engine as AsyncEngine
    from sampan.engine.running import Completed, RunFailed
    from sampan.engine.sync import Engine
    from sampan.errors import SampanError

__version__ = "0.1.0"

__all__ = [
    "AsyncEngine",
    "AsyncRemoteEngine",
    "Completed",
    "Engine",
    "EngineConfig",
    "Recipe",
    "RemoteEngine",
    "RunFailed",
    "SampanError",
    "connect",
    "connect_async",
    "from_",
]

_HOMES = {
    "AsyncEngine": ("sampan.engine.engine", "Engine"),
    "AsyncRemoteEngine": ("sampan.client.async_remote", "AsyncRemoteEngine"),
    "Completed": ("sampan.engine.running", "Completed"),
    "Engine": ("sampan.engine.sync", "Engine"),
    "EngineConfig": ("sampan.engine.config", "EngineConfig"),
    "Recipe": ("sampan.build.recipe", "Recipe"),
    "RemoteEngine": ("sampan.client.remote", "RemoteEngine"),
    "RunFailed": ("sampan.engine.running", "RunFailed"),
    "SampanError": ("sampan.errors", "SampanError"),
    "connect": ("sampan.client.remote", "connect"),
    "connect_async": ("sampan.client.async_remote", "connect_async"),
    "from_": ("sampan.build.recipe", "from_"),
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
