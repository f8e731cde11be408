"""Programs whose end may be on its way to us: those who have seen it ask about it at once.

A client that has read a program's output to its end, or seen its process go, must find it ended,
although a program closes its output a moment before it is gone, and its monitor tells us later.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select

from sampan.engine import waiting
from sampan.engine.core import Core
from sampan.engine.table import Container

#: seconds the news of a program's end may take from its monitor to us
NEWS = 2.0
#: seconds a program whose output has ended may take to end as well: when somebody asks about an
#: exec, and when a client's stream of a container ends
ENDING = 0.05
OUTPUT_ENDED = 0.25


async def settled(core: Core, container: Container, patience: float = 0.0) -> None:
    """Return once the end of a container's program is known, if it ends within ``patience``
    seconds; at once otherwise. Its endpoints are gone by then."""
    async with container.lock:  # a start may not have returned yet
        run = container.run
    if run is None or not container.state.pid:
        return
    if not await core.threads.run(ends, container.state.pid, patience):
        return
    if container.run is run:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(NEWS):
                await waiting.register(container, "next-exit")


def ends(pid: int, seconds: float) -> bool:
    """Whether a process has ended, or does within ``seconds``. Blocks."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(seconds * 1000))
    finally:
        os.close(descriptor)
