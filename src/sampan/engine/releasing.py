"""Giving back what a run held outside its processes."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from sampan.engine import sharedmemory
from sampan.engine.core import Core
from sampan.engine.fabric import Plug
from sampan.engine.table import Container, Run


def release(core: Core, container: Container, run: Run, plugs: Sequence[Plug]) -> None:
    """Undo what starting set up around the program, which has ended. Blocks.

    Raises the first error of a volume's driver, after having tried everything.
    """
    run.monitor.close()
    core.fabric.resolver.unplug(container.id)
    core.fabric.detach(plugs)
    if run.shared_memory:
        sharedmemory.unmount(run.shared_memory)
    shutil.rmtree(core.exec_directory(container.id), ignore_errors=True)
    core.volumes.release(container, core.containers)
