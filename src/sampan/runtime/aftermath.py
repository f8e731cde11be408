"""Ending what is left of a container whose monitor or worker was killed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import time
from collections.abc import Iterator
from typing import Any

from sampan.kernel import cgroup
from sampan.kernel.process import start_time
from sampan.runtime import foreign, records

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

_WAIT_MILLISECONDS = 5000
_KILLED = 137


def end_and_record(directory: str | Path) -> dict[str, Any]:
    """Kill what runs, remove cgroups and sockets, record the end unless it is; returns the record.

    Idempotent. Raises :class:`OSError` when a cgroup cannot be emptied, FileNotFoundError when
    somebody else has ended it and removed the directory.
    """
    with _alone(directory):
        live = records.read(directory, records.INIT)
        if live is not None:
            _end(live, str(directory))
        record = records.read(directory, records.EXIT)
        if record is None:
            record = {
                "code": _KILLED,
                "signal": int(signal.SIGKILL),
                "oom": False,
                "at": time.time_ns(),
                "error": "the monitor of the container was killed",
            }
            records.write(directory, records.EXIT, record)
        unfinished = (f"{records.INIT}.new", f"{records.EXIT}.new")
        records.remove(directory, records.SOCKET, records.INIT, *unfinished)
        return record


@contextlib.contextmanager
def _alone(directory: str | Path) -> Iterator[None]:
    """While inside, nobody else ends this container: a monitor and an engine may notice at once."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _end(live: dict[str, Any], directory: str) -> None:
    with contextlib.suppress(OSError):
        pidfd = os.pidfd_open(live["pid"]) if live["pid"] else -1
        if pidfd >= 0:
            try:
                # The pid may be somebody else's by now; pid and start time together are not.
                if start_time(live["pid"]) == live["start_time"]:
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                    poller = select.poll()
                    poller.register(pidfd, select.POLLIN)
                    poller.poll(_WAIT_MILLISECONDS)
            finally:
                os.close(pidfd)
    if live.get("runtime"):
        # What it complains of is of no use to anybody: all it would have done is done by us.
        container_id = live["container_id"]
        foreign.erase(
            foreign.Runtime(command=live["runtime"], directory=directory, container_id=container_id)
        )
    if live["cgroup"]:
        layout = cgroup.probe()
        # Absent: the container was made by a version that did not know systemd.
        cgroup.destroy(layout, live["cgroup"], live.get("scope", ""))
