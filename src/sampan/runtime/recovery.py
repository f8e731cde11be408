"""Containers without a live monitor, for their engine: records, and ending what is left."""

from __future__ import annotations

from pathlib import Path

from sampan.errors import Corrupt, NotFound
from sampan.runtime import aftermath, launch, records
from sampan.runtime.dialogue import ask
from sampan.runtime.requests import ExitRecord, Live

_ANSWER_SECONDS = 10.0


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
    if _answers(directory):
        return None
    if not directory.is_dir():
        return None
    try:
        return ExitRecord(**aftermath.end_and_record(directory))
    except FileNotFoundError:
        if directory.is_dir():
            raise
        return None


def _answers(directory: Path) -> bool:
    """Whether a monitor serves the directory: a listening socket may be of one that is dying."""
    try:
        with launch.connect_monitor(directory) as connection:
            connection.settimeout(_ANSWER_SECONDS)
            ask(connection, {"op": "status"})
    except Corrupt:
        return False
    except NotFound as error:
        return isinstance(error.__cause__, TimeoutError)  # there, but busy
    return True
