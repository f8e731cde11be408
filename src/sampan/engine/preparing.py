"""``container init``: everything of a start but its last step; the program waits to be let go.

What is prepared outlives the engine as running containers do (:mod:`sampan.engine.recovery` finds
it again), is let go by the next start, and given up by a stop or a removal.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress

from sampan.engine.core import Core
from sampan.engine.fabric import Plug
from sampan.engine.lifecycle import Event, after
from sampan.engine.releasing import give_back, release
from sampan.engine.starting import plug_pending, record_failure, start, started
from sampan.engine.table import Container, Run
from sampan.errors import Conflict, NotFound, SampanError, StartFailed
from sampan.runtime.client import read_exit


async def prepare(core: Core, container: Container) -> None:
    """See :meth:`sampan.engine.containers.Containers.init`; the lock is held."""
    status = after(container.state.status, Event.INIT)
    run = await start(core, container, hold=True)
    container.prepared = run
    core.state.submit(
        core.change(container, status=status, pid=run.monitor.pid, exit_code=0, error="")
    )
    core.publish(container, "init")


async def let_go(core: Core, container: Container) -> Run:
    """Let the program of a prepared container run; the lock is held.

    Raises as :meth:`sampan.engine.containers.Containers.start`; nothing is left prepared then.
    """
    run = container.prepared
    assert run is not None
    await plug_pending(core, container)
    try:
        await core.threads.run(_start, core, container, run)
    except SampanError as error:
        await _clean_up(core, container, run)
        record_failure(core, container, error)
        raise
    container.prepared = None
    started(core, container, run)
    if container.pending:
        await plug_pending(core, container)  # who came meanwhile
    return run


async def give_up(core: Core, container: Container) -> None:
    """Undo what was prepared; the lock is held."""
    run = container.prepared
    if run is None:
        return
    await _clean_up(core, container, run)
    status = after(container.state.status, Event.STOP)
    core.state.submit(core.change(container, status=status, pid=0))


def _start(core: Core, container: Container, run: Run) -> None:
    """Blocks."""
    try:
        run.monitor.start()
    except NotFound as error:
        # It was killed while it waited.
        record = read_exit(core.exec_directory(container.id))
        reason = record.error if record is not None else ""
        raise StartFailed(reason or "the container's first process is gone") from error


async def _clean_up(core: Core, container: Container, run: Run) -> None:
    container.prepared = None
    plugs = list(container.endpoints.values())
    container.endpoints = {}
    await give_back(core, container, run, plugs, _abort)


def _abort(core: Core, container: Container, run: Run, plugs: Sequence[Plug]) -> None:
    """Blocks."""
    os.close(run.pidfd)
    with run.events, suppress(Conflict):
        run.monitor.abort()
    release(core, container, run, plugs)


def let_be(container: Container) -> None:
    """The engine closes: what is prepared stays, for the next one to find."""
    run, container.prepared = container.prepared, None
    if run is not None:
        run.events.close()
        run.monitor.close()
        os.close(run.pidfd)
