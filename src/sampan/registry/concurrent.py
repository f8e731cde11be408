"""Running things at the same time so that one failure ends all and is raised as itself."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable


async def all_of(work: Iterable[Coroutine[None, None, None]]) -> None:
    """Run all of ``work`` to its end, in a task group.

    The first failure cancels the rest and is raised, not an exception group: callers look for
    domain errors, and what was cancelled has nothing to say.
    """
    try:
        async with asyncio.TaskGroup() as group:
            for item in work:
                group.create_task(item)
    except BaseExceptionGroup as errors:
        error: BaseException = errors
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from None
