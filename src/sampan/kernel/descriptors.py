"""Descriptor numbers: keeping the low ones for those who need them.

Libraries that wait with select(2) (libnftables) cannot have a descriptor above 1023. Sockets this
process holds by the thousand are moved above, so that low numbers stay free.
"""

from __future__ import annotations

import fcntl
import socket

#: Numbers below are left to select(2) users.
LOW = 1024


def raised(sock: socket.socket) -> socket.socket:
    """``sock`` under a number of at least :data:`LOW`; the same when the process may not have
    such numbers (RLIMIT_NOFILE). The socket given must not be used any more."""
    if sock.fileno() >= LOW:
        return sock
    try:
        number = fcntl.fcntl(sock.fileno(), fcntl.F_DUPFD_CLOEXEC, LOW)
    except OSError:
        return sock
    timeout = sock.gettimeout()
    moved = socket.socket(fileno=number)  # which asks the kernel what it is
    sock.close()
    moved.settimeout(timeout)
    return moved
