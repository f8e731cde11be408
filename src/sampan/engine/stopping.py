"""Signals and stops."""

from __future__ import annotations

import asyncio
import signal as signals

from sampan.engine import preparing
from sampan.engine.backoff import cancel_restart
from sampan.engine.core import Core
from sampan.engine.lifecycle import Status
from sampan.engine.table import Container, Run
from sampan.engine.validate import parse_signal
from sampan.errors import Conflict, NotModified, SampanError
from sampan.kernel import cgroup

DEFAULT_TIMEOUT = 10
#: seconds a SIGKILL may take to show; a process in uninterruptible sleep can exceed it
KILL_TIMEOUT = 10


def stop_signal(container: Container) -> int:
    """The signal that asks the container's program to end."""
    return parse_signal(container.record.config.stop_signal or "SIGTERM")


def require_run(container: Container, doing: str) -> Run:
    """The live run; Conflict in dockerd's words when there is none."""
    if container.run is None or container.run.ended.done():
        raise Conflict(f"{doing}: container {container.id} is not running")
    return container.run


def send(run: Run, number: int) -> bool:
    """Signal the first process; False when it has ended already."""
    try:
        signals.pidfd_send_signal(run.pidfd, number)
    except ProcessLookupError:
        return False
    return True


async def settled(container: Container) -> None:
    """Wait for a start, an exit or a removal under way, so that the status is what it seems."""
    if container.lock.locked():
        async with container.lock:
            return


async def kill(core: Core, container: Container, ref: str, signal: str) -> None:
    """See :meth:`sampan.engine.containers.Containers.kill`."""
    number = parse_signal(signal or "KILL")
    await settled(container)
    if cancel_restart(core, container):  # between two runs there is nothing to signal
        return
    run = require_run(container, f"cannot kill container: {ref}")
    ends = number in (signals.SIGKILL, stop_signal(container), signals.SIGTERM, signals.SIGINT)
    if ends:
        core.state.submit(core.change(container, stopped_by_user=True))
    if not send(run, number):
        raise Conflict(f"cannot kill container: {ref}: container {container.id} is not running")
    if number == signals.SIGKILL and container.state.status == Status.PAUSED:
        await core.threads.run(cgroup.thaw, core.facts.layout, run.cgroup)
    core.publish(container, "kill", signal=str(number))
    if number == signals.SIGKILL:
        await _ended(run, KILL_TIMEOUT)


async def stop(core: Core, container: Container, signal: str | None, seconds: int | None) -> None:
    """See :meth:`sampan.engine.containers.Containers.stop`."""
    number = parse_signal(signal) if signal else stop_signal(container)
    await settled(container)
    if cancel_restart(core, container):
        core.publish(container, "stop")
        return
    if container.prepared is not None:
        async with container.lock:
            await preparing.give_up(core, container)
        return
    run = container.run
    if run is None:
        raise NotModified("container already stopped")
    core.state.submit(core.change(container, stopped_by_user=True))
    await end(core, container, run, number, timeout_of(container, seconds))
    core.publish(container, "stop")


def timeout_of(container: Container, seconds: int | None) -> int:
    """Seconds to wait after the stop signal."""
    if seconds is not None:
        return seconds
    configured = container.record.config.stop_timeout
    return DEFAULT_TIMEOUT if configured is None else configured


async def end(core: Core, container: Container, run: Run, number: int, seconds: int) -> None:
    """Signal, wait up to ``seconds`` (-1: for ever), then SIGKILL; returns when all is cleaned."""
    if send(run, number):
        core.publish(container, "kill", signal=str(number))
    if container.state.status == Status.PAUSED:
        await core.threads.run(cgroup.thaw, core.facts.layout, run.cgroup)
    if not await _ended(run, None if seconds < 0 else seconds):
        send(run, signals.SIGKILL)
        core.publish(container, "kill", signal=str(int(signals.SIGKILL)))
        if not await _ended(run, KILL_TIMEOUT):
            await core.threads.run(cgroup.kill, core.facts.layout, run.cgroup)
            if not await _ended(run, KILL_TIMEOUT):
                raise SampanError(
                    f"container {container.id} did not end within {KILL_TIMEOUT} seconds of SIGKILL"
                )
    await run.finished.wait()


async def _ended(run: Run, seconds: float | None) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await asyncio.shield(run.ended)
    except TimeoutError:
        return False
    return True


async def pause(core: Core, container: Container) -> None:
    """See :meth:`sampan.engine.containers.Containers.pause`."""
    async with container.lock:
        run = require_run(container, "cannot pause container")
        if container.state.status == Status.PAUSED:
            raise Conflict(f"Container {container.id} is already paused")
        try:
            await core.threads.run(cgroup.freeze, core.facts.layout, run.cgroup)
        except FileNotFoundError as error:  # it has just ended
            raise Conflict(f"Container {container.id} is not running") from error
        core.state.submit(core.change(container, status=Status.PAUSED))
        if container.health is not None:
            container.health.stop()
    core.publish(container, "pause")


async def unpause(core: Core, container: Container) -> None:
    """See :meth:`sampan.engine.containers.Containers.unpause`."""
    async with container.lock:
        if container.run is None or container.state.status != Status.PAUSED:
            # No conflict to dockerd's clients, unlike a second pause: 500.
            raise SampanError(f"Container {container.id} is not paused")
        try:
            await core.threads.run(cgroup.thaw, core.facts.layout, container.run.cgroup)
        except FileNotFoundError as error:  # it ended while it was being frozen
            raise Conflict(f"Container {container.id} is not running") from error
        core.state.submit(core.change(container, status=Status.RUNNING))
        if container.health is not None:
            container.health.start()
    core.publish(container, "unpause")
