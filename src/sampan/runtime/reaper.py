"""PID 1 of a container with ``--init``: forwards signals to its child and reaps everybody.

It behaves as tini(1) does for ``docker run --init``: the child leads a process group of its own,
gets every signal that can be caught, and its exit status is ours (128 + signal when killed).
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable
from typing import NoReturn

from sampan.kernel import prctl, process

#: Signals of our own doing, which belong to us and not to the child.
_OWN = frozenset(
    {
        signal.SIGFPE,
        signal.SIGILL,
        signal.SIGSEGV,
        signal.SIGBUS,
        signal.SIGABRT,
        signal.SIGTRAP,
        signal.SIGSYS,
        signal.SIGTTIN,
        signal.SIGTTOU,
    }
)
_IGNORED = (
    signal.SIGPIPE,
    signal.SIGXFSZ,
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGCHLD,
)


def block() -> set[signal.Signals]:
    """Block everything we will wait for; returns the mask before."""
    signals = signal.valid_signals() - _OWN - {signal.SIGKILL, signal.SIGSTOP}
    old = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    return {number for number in old if isinstance(number, signal.Signals)}


def unblock(mask: Iterable[signal.Signals]) -> None:
    """Put the mask of :func:`block` back, in the child."""
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def default_signals() -> None:
    """Default dispositions and an empty mask, which execve(2) would otherwise pass on.

    Python ignores SIGPIPE and SIGXFSZ, the monitor those that would end it, the launcher SIGCHLD.
    """
    for number in _IGNORED:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def take_foreground() -> None:
    """Make our process group the terminal's foreground one."""
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTTOU,))
    with contextlib.suppress(OSError):  # no terminal after all
        os.tcsetpgrp(0, os.getpgrp())


def supervise(child: int) -> NoReturn:
    """Wait for signals until ``child`` has ended, then end as it did."""
    prctl.set_name("sampan-init")
    process.Title().set("sampan-init")
    for number in (signal.SIGTTIN, signal.SIGTTOU):
        signal.signal(number, signal.SIG_IGN)
    waited = signal.valid_signals() - _OWN - {signal.SIGKILL, signal.SIGSTOP}
    while True:
        information = signal.sigwaitinfo(waited)
        if information.si_signo != signal.SIGCHLD:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, information.si_signo)
            continue
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    break
                if pid == child:
                    code = os.waitstatus_to_exitcode(status)
                    os._exit(code if code >= 0 else 128 - code)
