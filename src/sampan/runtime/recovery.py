"""Containers without a live monitor: reading their records, ending what a killed one left."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from dataclasses import asdict
from pathlib import Path

from sampan.errors import NotFound
from sampan.kernel import cgroup
from sampan.kernel.process import start_time
from sampan.runtime import launch, records
from sampan.runtime.requests import ExitRecord, Live


def read_exit(directory: Path) -> ExitRecord | None:
    """The exit record of a container, None while there is none."""
    values = records.read(directory, records.EXIT)
    return None if values is None else ExitRecord(**values)


def read_live(directory: Path) -> Live | None:
    """What the monitor published, None when the container never came to be."""
    values = records.read(directory, records.INIT)
    return None if values is None else Live(**values)


def recover(directory: Path) -> ExitRecord | None:
    """End what a killed monitor left and record it.

    None when the monitor is alive, or there is no such directory.

    Kills the container's processes (by pidfd and cgroup), removes its cgroups and sockets, writes
    ``exit.json`` with code 137 unless there is one. Idempotent.
    """
    try:
        launch.connect_monitor(directory).close()
    except NotFound:
        pass
    else:
        return None
    if not directory.is_dir():
        return None
    live = read_live(directory)
    if live is not None:
        _end(live)
    record = read_exit(directory)
    if record is None:
        record = ExitRecord(
            code=137,
            signal=9,
            at=time.time_ns(),
            error="the monitor of the container was killed",
        )
        records.write(directory, records.EXIT, asdict(record))
    leftovers = (records.SOCKET, f"{records.INIT}.new", f"{records.EXIT}.new", records.INIT)
    records.remove(directory, *leftovers)
    return record


def _end(live: Live) -> None:
    """Kill what runs in a container without a monitor, and remove its cgroups."""
    with contextlib.suppress(OSError):
        pidfd = os.pidfd_open(live.pid) if live.pid else -1
        if pidfd >= 0:
            try:
                if start_time(live.pid) == live.start_time:
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                    select.select([pidfd], [], [], 5)
            finally:
                os.close(pidfd)
    if live.cgroup:
        layout = cgroup.probe()
        cgroup.kill(layout, live.cgroup)
        cgroup.remove(layout, live.cgroup)
