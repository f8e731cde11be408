"""The life of a worker process: forked ahead of time or woken, until there is nothing to do."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from typing import NoReturn

from sampan.kernel import cgroup, prctl, process
from sampan.runtime import channel, rehearsal
from sampan.runtime.channel import Message
from sampan.runtime.connection import trusted
from sampan.runtime.maker import Maker, SpareNetwork
from sampan.runtime.state import thaw
from sampan.runtime.worker import Worker

_REQUEST_SECONDS = 10.0


def serve(
    listener: socket.socket,
    monitor: socket.socket,
    taken: int,
    layout: cgroup.Layout,
    identity: Message,
    title: process.Title,
    sample: bytes,
) -> NoReturn:
    """Be the first worker: wait for a connection to the launcher and do what it asks.

    ``taken``: pipe to the launcher: a byte when the connection is there, its end when the container
    is made. ``identity``: the answer for who only asks which launcher this is. ``sample``: of a
    request, to rehearse with while we wait.
    """
    network = _prepare(sample, layout)
    client, _ = listener.accept()
    listener.close()
    try:
        os.write(taken, b"1")
        monitor.send(b"1")
    except BrokenPipeError:
        os._exit(0)  # the launcher has died, and we are about to; the client tries again
    _settle_in(title)
    message, blob = _read_request(client)
    if message is not None and message.get("op") == "create":
        maker = Maker(monitor, layout, network)
        state = maker.make(client, message, blob)
        os.close(taken)
        if state is not None:
            Worker(monitor, layout, state).run()
    elif message is not None:
        channel.send_frame(client, {"ok": True, **identity})
    os._exit(0)


def _prepare(sample: bytes, layout: cgroup.Layout) -> SpareNetwork | None:
    """What can be done before anybody asks. Nothing of it is needed."""
    with contextlib.suppress(OSError):
        rehearsal.worker(sample, layout)
        return SpareNetwork()
    return None


def wake(
    monitor: socket.socket,
    layout: cgroup.Layout,
    title: process.Title,
    frozen: bytes,
    fds: list[int],
) -> NoReturn:
    """Be another worker, where the last one left."""
    _settle_in(title)
    Worker(monitor, layout, thaw(frozen, fds)).run()
    os._exit(0)


def _settle_in(title: process.Title) -> None:
    prctl.set_parent_death_signal(int(signal.SIGKILL))
    process.set_signal(int(signal.SIGTERM), ignored=True)
    prctl.set_name("sampan-worker")
    title.set("sampan-worker")


def _read_request(client: socket.socket) -> tuple[Message | None, bytes]:
    if not trusted(client):
        return None, b""
    client.settimeout(_REQUEST_SECONDS)
    message, blob, _ = channel.receive_frame(client)
    client.settimeout(None)
    return message, blob
