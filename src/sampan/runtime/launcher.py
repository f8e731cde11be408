"""The process monitors are forked from: tiny, single-threaded, everything imported, heap frozen.

It runs a sealed copy of the interpreter in memory, so that whatever a container does with
/proc/<pid>/exe of its init, the host's interpreter is out of reach (CVE-2019-5736). It keeps one
monitor forked ahead, which takes the next connection and outlives the launcher.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import NoReturn

from sampan.kernel import cgroup, prctl, process
from sampan.runtime import channel, init, monitor, rehearsal, version, worker_process
from sampan.runtime.channel import Message

_BACKLOG = 512
_OOM_SCORE = "-900"
_RETRY_SECONDS = 0.1
_SIGCHLD, _SIGKILL = int(signal.SIGCHLD), int(signal.SIGKILL)
_PATIENCE_MILLISECONDS = 20
_MEMORY = 4


def main() -> NoReturn:
    """``argv``: descriptors of the socket to listen on, of a pipe to tell readiness on, and of one
    that ends when the process that started us does, or wants us to."""
    listener_fd, ready, owner = (int(argument) for argument in sys.argv[1:4])
    listener = socket.socket(fileno=listener_fd)
    os.set_inheritable(listener_fd, False)
    os.set_inheritable(owner, False)
    process.close_all_but({listener_fd, ready, owner})
    prctl.set_name("sampan-launcher")
    title = process.Title()
    title.set("sampan-launcher")
    # Children are reaped by the kernel; they take SIGCHLD back for themselves.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write(_OOM_SCORE)  # needs CAP_SYS_RESOURCE; without it we are as likely as others
    process.forget_affinity()
    layout = cgroup.probe()
    identity = {"version": version.fingerprint(), "pid": os.getpid()}
    listener.listen(_BACKLOG)
    listener.setblocking(True)
    _warm_up()
    sample = _planned_apart()
    rehearsal.launcher(sample, layout)
    init.forget_imports()
    gc.collect()
    gc.freeze()
    gc.disable()
    os.write(ready, b"1")
    os.close(ready)
    # Which kinds of containers there were lately: in a user namespace of their own or not.
    kinds = deque([False], maxlen=_MEMORY)
    while True:
        wanted = tuple(set(kinds))
        kinds += _keep_spare(listener, layout, identity, title, owner, sample, wanted)


def _planned_apart() -> bytes:
    """A request to rehearse with, planned by a child: all that are forked from us would carry the
    planner along. Raises :class:`OSError` when the child fails."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    if os.fork() == 0:
        _guarded(_plan_sample, writer)
    os.close(writer)
    with open(reader, "rb") as pipe:
        text = pipe.read()
    if not text:
        raise OSError("the rehearsal could not be planned")
    return text


def _plan_sample(writer: int) -> NoReturn:
    from sampan.runtime import rehearsal_request

    with open(writer, "wb") as pipe:
        pipe.write(rehearsal_request.sample())
    os._exit(0)


def _keep_spare(
    listener: socket.socket,
    layout: cgroup.Layout,
    identity: Message,
    title: process.Title,
    owner: int,
    sample: bytes,
    kinds: tuple[bool, ...],
) -> tuple[bool, ...]:
    """Have a monitor and its worker wait for the next connection, with processes of ``kinds``.

    Returns when they are taken: the kind of what they make, if it is known.
    """
    told, taken = os.pipe2(os.O_CLOEXEC)
    try:
        child = os.fork()
    except OSError:
        os.close(told)
        os.close(taken)
        time.sleep(_RETRY_SECONDS)  # EAGAIN, ENOMEM: connections queue meanwhile
        return ()
    if child == 0:
        os.close(told)
        os.close(owner)
        _guarded(_be_monitor, listener, layout, identity, taken, title, sample, kinds)
    os.close(taken)
    try:
        word = _wait(told, owner)
        if not word:
            time.sleep(_RETRY_SECONDS)  # it died before anybody came: do not spin
            return ()
        # The next one is forked when this container runs, not while it is made: there are not so
        # many processors. A slow one is not waited for, and nobody waits for us.
        poller = select.poll()
        poller.register(told, select.POLLHUP)
        poller.register(listener, select.POLLIN)
        poller.poll(_PATIENCE_MILLISECONDS)
        return () if word == worker_process.UNKNOWN else (word == worker_process.USER,)
    finally:
        os.close(told)


def _wait(told: int, owner: int) -> bytes:
    """What the spare says when it is taken; nothing if it has died. Without an owner we end."""
    poller = select.poll()
    poller.register(told, select.POLLIN)
    poller.register(owner, select.POLLHUP)
    while True:
        ready = [fd for fd, _ in poller.poll()]
        if told in ready:
            return os.read(told, 1)
        if owner in ready:
            os._exit(0)  # spares die with us; containers have monitors of their own


def _be_monitor(
    listener: socket.socket,
    layout: cgroup.Layout,
    identity: Message,
    taken: int,
    title: process.Title,
    sample: bytes,
    kinds: tuple[bool, ...],
) -> NoReturn:
    """In the child: fork the first worker, then wait for what it makes."""
    os.setsid()
    _die_with(identity["pid"])
    process.set_signal(_SIGCHLD, ignored=False)
    prctl.set_name("sampan-monitor")
    ours, theirs = channel.pair()
    me = os.getpid()
    child = os.fork()
    if child == 0:
        ours.close()
        _die_with(me)
        arguments = (listener, theirs, taken, layout, identity, title, sample, kinds)
        _guarded(worker_process.serve, *arguments)
    theirs.close()
    listener.close()
    os.close(taken)
    monitor.serve(ours, child, layout, title, _guarded)
    os._exit(0)


def _die_with(parent: int) -> None:
    """A spare is worth nothing without who forked it."""
    prctl.set_parent_death_signal(_SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def _guarded(function: Callable[..., NoReturn], *arguments: object) -> NoReturn:
    """Nothing unwinds into the launcher's frames."""
    try:
        function(*arguments)
    except BaseException as error:
        _complain(error)
    os._exit(1)


def _warm_up() -> None:
    """Do once what Python does lazily on first use, so that no child has to (or no longer can)."""
    "x".encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    os.fsencode("x")
    os.strerror(1)
    OSError(2, "x").__str__()


def _complain(error: BaseException) -> None:
    """One line on stderr (the launcher's log)."""
    place = error.__traceback__
    trail = []
    while place is not None:
        code = place.tb_frame.f_code
        trail.append(f"{os.path.basename(code.co_filename)}:{place.tb_lineno}")
        place = place.tb_next
    line = f"sampan-monitor {os.getpid()}: {type(error).__name__}: {error} ({' '.join(trail)})\n"
    with contextlib.suppress(OSError):
        os.write(2, line.encode("utf-8", "replace"))
