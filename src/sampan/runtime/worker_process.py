"""The life of a worker process: forked ahead of time or woken, until there is nothing to do."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Sequence
from typing import NoReturn

from sampan.kernel import cgroup, prctl, process
from sampan.runtime import channel, rehearsal
from sampan.runtime.channel import Message
from sampan.runtime.connection import trusted
from sampan.runtime.maker import Maker, ask_to_reap
from sampan.runtime.spare import Spare
from sampan.runtime.state import thaw
from sampan.runtime.worker import Worker

_REQUEST_SECONDS = 10.0
#: what a worker tells the launcher about the container it makes
USER, HOST, UNKNOWN = b"u", b"h", b"?"


def serve(
    listener: socket.socket,
    monitor: socket.socket,
    taken: int,
    layout: cgroup.Layout,
    identity: Message,
    title: process.Title,
    sample: bytes,
    kinds: Sequence[bool],
) -> NoReturn:
    """Be the first worker: wait for a connection to the launcher and do what it asks.

    ``taken``: pipe to the launcher: a byte when the container is made (USER or HOST) or others wait
    (UNKNOWN), its end when it runs. ``identity``: the answer for who only asks which launcher this
    is. ``sample``: of a request, to rehearse with while we wait. ``kinds``: for each process to
    keep waiting, whether it is in a user namespace.
    """
    client, spares = _await(listener, monitor, sample, layout, kinds)
    if more := channel.readable(listener):
        _tell(taken, UNKNOWN)
    listener.close()
    message = _read_request(client)
    creating = message is not None and message.get("op") == "create"
    user = creating and message is not None and message["user_namespace"]
    maker = Maker(monitor, layout, spares.pop(user, None))
    state = None
    if creating and message is not None:
        state = maker.make(client, message)
    elif message is not None:
        channel.send_frame(client, {"ok": True, **identity})
    # What nobody waits for comes last.
    if not more:
        _tell(taken, (USER if user else HOST) if creating else UNKNOWN)
    maker.close()
    for spare in spares.values():
        ask_to_reap(monitor, spare.end())
    if state is not None:
        _settle_in(title)
        Worker(monitor, layout, state, taken=taken).run()
    os._exit(0)


def _tell(taken: int, what: bytes) -> None:
    with contextlib.suppress(BrokenPipeError):  # the launcher has died; what we make goes on
        os.write(taken, what)


def _await(
    listener: socket.socket,
    monitor: socket.socket,
    sample: bytes,
    layout: cgroup.Layout,
    kinds: Sequence[bool],
) -> tuple[socket.socket, dict[bool, Spare]]:
    """Wait for a connection; do meanwhile what can be done before anybody asks.

    The spare processes are replaced when they get old. Nothing of this is needed: it is tried,
    unless somebody waits for us by now.
    """
    listener.settimeout(Spare.SECONDS)
    while True:
        spares: dict[bool, Spare] = {}
        with contextlib.suppress(OSError):
            for user in kinds:
                if not channel.readable(listener):
                    spares[user] = Spare(lambda root: rehearsal.waiting(sample, root), user=user)
            # After the forks: they have made every page shared, whoever had copied it before.
            if not channel.readable(listener):
                rehearsal.worker(sample, layout)
        try:
            client, _ = listener.accept()
        except TimeoutError:
            for spare in spares.values():
                ask_to_reap(monitor, spare.end())
            continue
        client.settimeout(None)
        return client, spares


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


def _read_request(client: socket.socket) -> Message | None:
    if not trusted(client):
        return None
    client.settimeout(_REQUEST_SECONDS)
    message, _, _ = channel.receive_frame(client)
    client.settimeout(None)
    return message
