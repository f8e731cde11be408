"""Containers without a live monitor, for their engine: records, and ending what is left."""

from __future__ import annotations

from pathlib import Path

from sampan.errors import NotFound
from sampan.runtime import aftermath, launch, records
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

    None when the monitor is alive, or there is no such directory. Kills the container's processes
    (by pidfd and cgroup), removes its cgroups and sockets, writes ``exit.json`` with code 137
    unless there is one. Idempotent. Raises :class:`OSError` when processes do not die.
    """
    try:
        launch.connect_monitor(directory).close()
    except NotFound:
        pass
    else:
        return None
    if not directory.is_dir():
        return None
    return ExitRecord(**aftermath.end_and_record(directory))
