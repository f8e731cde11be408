"""Calling off a restart that waits for its time."""

from __future__ import annotations

from sampan.engine.core import Core
from sampan.engine.lifecycle import Event, Status, after
from sampan.engine.table import Container


def cancel_restart(core: Core, container: Container) -> bool:
    """Call off a waiting restart; whether there was one."""
    if container.backoff is None:
        return False
    container.backoff.cancel()
    container.backoff = None
    if container.state.status == Status.RESTARTING:
        status = after(container.state.status, Event.STOP)
        core.state.submit(core.change(container, status=status, stopped_by_user=True))
    return True
