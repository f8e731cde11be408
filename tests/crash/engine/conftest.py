"""The same world as the kernel tests of the engine."""

from tests.kernel.engine.conftest import world

__all__ = ["world"]
