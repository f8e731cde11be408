"""Clients waiting for a container to stop, to stop next time, or to be gone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from sampan.engine.lifecycle import Status
from sampan.engine.table import Container, Waiter
from sampan.errors import InvalidParameter
from sampan.wire.container import ContainerWaitResponse

CONDITIONS = ("not-running", "next-exit", "removed")


def register(container: Container, condition: str) -> Awaitable[ContainerWaitResponse]:
    """A waiter in force from now on; awaiting it gives the exit code.

    Raises InvalidParameter for an unknown condition.
    """
    wanted = condition or "not-running"
    if wanted not in CONDITIONS:
        raise InvalidParameter(f'invalid condition: "{condition}"')
    result: asyncio.Future[ContainerWaitResponse] = asyncio.get_running_loop().create_future()
    running = container.state.alive or container.state.status == Status.RESTARTING
    if (wanted == "not-running" and not running) or container.removed:
        result.set_result(_response(container))
    else:
        container.waiters.append(Waiter(condition=wanted, result=result))
    return _wait(container, result)


async def _wait(
    container: Container, result: asyncio.Future[ContainerWaitResponse]
) -> ContainerWaitResponse:
    try:
        return await result
    finally:
        container.waiters = [w for w in container.waiters if w.result is not result]


def _response(container: Container) -> ContainerWaitResponse:
    return ContainerWaitResponse(status_code=container.state.exit_code)


def resolve(container: Container, *conditions: str) -> None:
    """Answer whoever waits for one of ``conditions``."""
    response = _response(container)
    for waiter in container.waiters:
        if waiter.condition in conditions and not waiter.result.done():
            waiter.result.set_result(response)
