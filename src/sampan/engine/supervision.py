"""Watching over running containers: their events, their exits and what follows from them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from sampan.engine import clock, logforwarding, removal, restart, waiting
from sampan.engine.attaching import discard
from sampan.engine.core import Core, log
from sampan.engine.health import HealthMonitor
from sampan.engine.lifecycle import Event, Status, after
from sampan.engine.releasing import give_back, release
from sampan.engine.starting import start
from sampan.engine.table import Container, Run
from sampan.errors import SampanError
from sampan.runtime.client import ExitRecord, read_exit, recover


def watch(core: Core, container: Container, run: Run) -> None:
    """Follow a run's events until its end; returns at once."""
    run.events.setblocking(False)
    loop = asyncio.get_running_loop()
    loop.add_reader(run.events.fileno(), _readable, core, container, run)
    core.tasks.spawn(_supervise(core, container, run), f"supervise {container.id[:12]}")
    logforwarding.follow(core, container)
    container.health = HealthMonitor.of(core, container)
    if container.health is not None:
        container.health.start()


def _readable(core: Core, container: Container, run: Run) -> None:
    """Read what the monitor says; its end without an exit means it was killed."""
    try:
        data = run.events.recv(65536)
    except BlockingIOError:
        return
    except OSError:
        data = b""
    if not data:
        _unwatch(run)
        if not run.ended.done():
            core.tasks.spawn(_recover(core, container, run), f"recover {container.id[:12]}")
        return
    run.buffer += data
    while (end := run.buffer.find(b"\n")) >= 0:
        line = bytes(run.buffer[:end])
        del run.buffer[: end + 1]
        _event(core, container, run, json.loads(line))


def _event(core: Core, container: Container, run: Run, event: Mapping[str, object]) -> None:
    match event.get("event"):
        case "exit":
            _unwatch(run)
            if not run.ended.done():
                run.ended.set_result(
                    ExitRecord(
                        code=_int(event, "code"),
                        signal=_int(event, "signal"),
                        oom=bool(event.get("oom")),
                        at=_int(event, "at"),
                        error=str(event.get("error") or ""),
                    )
                )
        case "oom":
            core.change(container, oom_killed=True)
            core.publish(container, "oom")
        case "exec-exit":
            found = core.execs.get(str(event.get("exec_id")))
            if found is not None:
                found.exited(core, _int(event, "code"))


def _int(event: Mapping[str, object], key: str) -> int:
    value = event.get(key)
    return value if isinstance(value, int) else 0


def _unwatch(run: Run) -> None:
    with contextlib.suppress(ValueError, OSError):
        asyncio.get_running_loop().remove_reader(run.events.fileno())
    run.events.close()


async def _recover(core: Core, container: Container, run: Run) -> None:
    """The monitor is gone: end what it left; its exit record, ours otherwise, says how."""
    directory = core.exec_directory(container.id)
    record = await core.threads.run(_exit_record, directory)
    if not run.ended.done():
        run.ended.set_result(record)


def _exit_record(directory: Path) -> ExitRecord:
    found = read_exit(directory) or recover(directory)
    return found or ExitRecord(code=137, at=clock.now(), error="the monitor is gone")


async def _supervise(core: Core, container: Container, run: Run) -> None:
    record = await run.ended
    ending = core.tasks.spawn(
        _end(core, container, run, record), f"end of {container.id[:12]}", quiet=True, whole=True
    )
    # The engine's closing cancels us, who only wait, but lets the ending finish.
    await asyncio.shield(ending)


async def _end(core: Core, container: Container, run: Run, record: ExitRecord) -> None:
    async with container.lock:
        await ended(core, container, run, record)


async def ended(core: Core, container: Container, run: Run, record: ExitRecord) -> None:
    """Deal with an exit; the container's lock is held.

    The waiters hear of it first, the network and the directories are released after.
    """
    if container.health is not None:
        container.health.stop()
    host = container.record.host_config
    state = container.state
    removing = state.status == Status.REMOVING
    core_change = core.change(
        container,
        status=after(state.status, Event.EXIT),
        pid=0,
        last_pid=state.pid,
        exit_code=record.code,
        oom_killed=record.oom or state.oom_killed,
        finished_at=record.at or clock.now(),
        error=record.error,
    )
    container.run = None
    os.close(run.pidfd)
    if not host.auto_remove or container.restarting:
        core.state.submit(core_change)
    ran_for = max(0, container.state.finished_at - state.started_at) / 1e9
    core.publish(container, "die", exitCode=str(record.code), execDuration=str(int(ran_for)))
    waiting.resolve(container, "not-running", "next-exit")
    plugs = list(container.endpoints.values())
    container.endpoints = {}
    for plug in plugs:
        core.publish_network(plug.network.id, plug.network.record, container.id, "disconnect")
    for mount in container.record.mounts:
        if mount.type == "volume":
            attributes = {"container": container.id, "driver": mount.driver}
            core.events.publish("volume", "unmount", mount.name, attributes)
    await give_back(core, container, run, plugs, release)
    _forget_execs(core, container)
    run.finished.set()
    if removing or container.restarting:
        return
    if host.auto_remove:
        await removal.remove_locked(core, container, volumes=True)
    elif not core.closing.is_set():
        _consider_restart(core, container, ran_for)


def _forget_execs(core: Core, container: Container) -> None:
    """Those that never started go with the run; those that did can be asked about for a while."""
    for exec_id in list(container.execs):
        found = core.execs.get(exec_id)
        if found is not None and found.running:
            found.exited(core, 137)
        elif found is not None and found.exit_code is None:
            del core.execs[exec_id]
            container.execs.discard(exec_id)


def _consider_restart(core: Core, container: Container, ran_for: float) -> None:
    state = container.state
    wanted, container.restart_wanted = container.restart_wanted, False
    if not wanted and not restart.should_restart(
        container.record.host_config.restart_policy,
        exit_code=state.exit_code,
        count=state.restart_count,
        stopped_by_user=state.stopped_by_user,
    ):
        discard(container.pending)
        container.pending.clear()
        return
    container.backoff_delay = restart.next_delay(container.backoff_delay, ran_for)
    core.state.submit(
        core.change(
            container,
            status=after(state.status, Event.BACKOFF),
            restart_count=state.restart_count + 1,
        )
    )
    container.backoff = core.tasks.spawn(
        restart_later(core, container, container.backoff_delay), f"restart {container.id[:12]}"
    )


async def restart_later(core: Core, container: Container, delay: float) -> None:
    """Start a container again after ``delay`` seconds, unless that is cancelled."""
    await asyncio.sleep(delay)
    # From here on it is done to its end: a start cut in two would leave a container unwatched.
    await asyncio.shield(
        core.tasks.spawn(
            _start_again(core, container), f"start {container.id[:12]}", quiet=True, whole=True
        )
    )


async def _start_again(core: Core, container: Container) -> None:
    async with container.lock:
        container.backoff = None
        if (
            core.closing.is_set()
            or container.removed
            or container.state.status == Status.REMOVING
            or container.run
        ):
            return
        started = container.state.started_at
        try:
            run = await start(core, container, automatic=True)
        except SampanError as error:
            log.warning("restart of container %s failed: %s", container.id[:12], error.message)
            core.change(container, finished_at=clock.now(), started_at=started)
            if container.state.status == Status.EXITED:
                _consider_restart(core, container, 0.0)
        else:
            watch(core, container, run)
