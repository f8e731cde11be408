"""Giving back what a run held outside its processes."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Sequence

from sampan.engine import sharedmemory
from sampan.engine.core import Core, log
from sampan.engine.fabric import Plug
from sampan.engine.table import Container, Run
from sampan.errors import SampanError


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


async def give_back(
    core: Core,
    container: Container,
    run: Run,
    plugs: Sequence[Plug],
    blocking: Callable[[Core, Container, Run, Sequence[Plug]], None],
) -> None:
    """Forget ``plugs`` everywhere, with ``blocking`` in a thread: :func:`release`, or more."""
    core.fabric.leave(container.id, plugs)
    given_back: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    for plug in plugs:
        plug.network.leaving.add(given_back)
    try:
        await core.threads.run(blocking, core, container, run, plugs)
    except (OSError, SampanError) as error:
        # What is left is found by the next reconciliation; the run has ended all the same.
        log.warning("cleaning up after container %s: %s", container.id[:12], error)
    finally:
        core.fabric.release(plugs)
        if plugs:
            core.state.submit(*core.fabric.delete_endpoints(plugs))
        for plug in plugs:
            plug.network.leaving.discard(given_back)
        given_back.set_result(None)
