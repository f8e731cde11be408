"""The process monitors are forked from: tiny, single-threaded, everything imported, heap frozen.

It runs a sealed copy of the interpreter in memory, so that whatever a container does with
/proc/<pid>/exe of its init, the host's interpreter is out of reach (CVE-2019-5736). It accepts a
connection, forks, and forgets: the child is the monitor, and outlives it.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import sys
from typing import NoReturn

from sampan.kernel import cgroup, prctl, process
from sampan.runtime import monitor, version
from sampan.runtime.connection import trusted

_BACKLOG = 512
_OOM_SCORE = "-900"


def main() -> NoReturn:
    """``argv``: descriptor of the socket to listen on, descriptor to tell readiness on."""
    listener_fd, ready = int(sys.argv[1]), int(sys.argv[2])
    listener = socket.socket(fileno=listener_fd)
    os.set_inheritable(listener_fd, False)
    process.close_all_but({listener_fd, ready})
    prctl.set_name("sampan-launcher")
    process.set_title("sampan-launcher")
    # Children are reaped by the kernel; they take SIGCHLD back for themselves.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write(_OOM_SCORE)  # needs CAP_SYS_RESOURCE; without it we are as likely as others
    layout = cgroup.probe()
    listener.listen(_BACKLOG)
    listener.setblocking(True)
    _warm_up()
    gc.collect()
    gc.freeze()
    gc.disable()
    fingerprint = version.fingerprint()
    os.write(ready, fingerprint.encode())
    os.close(ready)
    while True:
        _serve(listener, layout, fingerprint)


def _serve(listener: socket.socket, layout: cgroup.Layout, fingerprint: str) -> None:
    try:
        connection, _ = listener.accept()
    except (InterruptedError, ConnectionAbortedError):
        return
    if not trusted(connection):
        connection.close()
        return
    try:
        child = os.fork()
    except OSError:
        connection.close()  # EAGAIN: the peer sees the end of the stream
        return
    if child:
        connection.close()
        return
    listener.close()
    try:
        os.setsid()
        monitor.serve(connection, layout, fingerprint)
    except BaseException as error:
        _complain(error)
        os._exit(1)
    os._exit(0)


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
