"""The process beside each container: parent of its first process, and almost always asleep.

It may idle for years, so it does next to nothing itself: every page a Python process writes to,
be it a reference count, is its own from then on. What happens to a container is handled by its
*worker* (:mod:`worker`), a child that lives while there is something to do. The first worker made
the container. When nothing happens for a while, the worker gives what it holds to the monitor,
as a blob and descriptors, and ends; the monitor sleeps on the descriptors and forks the next worker
when one of them is ready.

A worker that dies in any other way takes its container with it, as does a monitor.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
from collections.abc import Callable
from typing import NoReturn

from sampan.kernel import cgroup, prctl, process
from sampan.runtime import aftermath, channel, worker_process

_SIGTERM, _SIGKILL = int(signal.SIGTERM), int(signal.SIGKILL)


def serve(
    pair: socket.socket,
    worker_pid: int,
    layout: cgroup.Layout,
    title: process.Title,
    guarded: Callable[..., NoReturn],
) -> None:
    """Wait for what the first worker makes, and stay beside it: returns when all is over.

    ``guarded``: calls a function in a forked child, so that nothing comes back from it.
    """
    init_pid, directory = 0, ""
    while True:
        message, fds = channel.receive_value(pair)
        if message is None:
            _, status = os.waitpid(worker_pid, 0)
            if status and init_pid:
                _end_container(directory, init_pid)
            return
        if message[0] == "made":
            _, init_pid, directory, container_id = message
            prctl.set_parent_death_signal(0)  # from here on the launcher may go
            process.set_signal(_SIGTERM, ignored=True)
            title.set(f"sampan-monitor {container_id}")
        elif message[0] == "reap":
            _, status = os.waitpid(message[1], 0)
            channel.send_value(pair, status)
        elif message[0] == "adopt":
            # Who is orphaned below us becomes our child: only while another runtime makes our
            # container's first process, since whoever else comes would never be reaped.
            prctl.set_child_subreaper(message[1])
            channel.send_value(pair, 0)
        else:  # "rest"
            _, state, sleep_on = message
            os.waitpid(worker_pid, 0)
            pair.close()
            _sleep(fds[:sleep_on])
            pair, theirs = channel.pair()
            worker_pid = os.fork()
            if worker_pid == 0:
                pair.close()
                guarded(worker_process.wake, theirs, layout, title, state, fds)
            theirs.close()
            for fd in fds:
                os.close(fd)


def _sleep(fds: list[int]) -> None:
    """Until something happens on one of them."""
    poller = select.poll()
    for fd in fds:
        poller.register(fd, select.POLLIN)
    poller.poll()


def _end_container(directory: str, init_pid: int) -> None:
    """The worker was killed: end what it was to look after, and record it."""
    os.kill(init_pid, _SIGKILL)
    os.waitpid(init_pid, 0)
    with contextlib.suppress(FileNotFoundError):  # the engine was faster, and is done with it
        aftermath.end_and_record(directory)
