"""Children that one function is for, at the other end of a channel."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import NoReturn

from sampan.kernel import process
from sampan.runtime import channel

_FAILED = 255


def forked(
    function: Callable[[socket.socket], NoReturn], flags: int = 0
) -> tuple[int, int, socket.socket]:
    """A child in which ``function`` gets its end of a channel: (pid, pidfd, our end).

    ``flags`` as for :func:`sampan.kernel.process.clone3`. Nothing unwinds in the child into what
    we were doing. Raises :class:`OSError`.
    """
    ours, theirs = channel.pair()
    with theirs:
        try:
            pid, pidfd = process.clone3(flags)
        except OSError:
            ours.close()
            raise
        if pid == 0:
            try:
                function(theirs)
            finally:
                os._exit(_FAILED)
    return pid, pidfd, ours
