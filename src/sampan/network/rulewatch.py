"""Hearing of it when anybody changes nftables rules of a network namespace."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import threading
from collections.abc import Callable

from sampan.errors import SampanError
from sampan.kernel import netlink

_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP = 270, 1
_NFNLGRP_NFTABLES = 7
#: subsystem nftables, message "new generation": ends what one transaction tells
_NEWGEN = 10 << 8 | 15
#: every other message names the table it is about in the attribute of this number
_NFTA_TABLE = 1
_NFTA_GEN_PROC_PID = 2
_HEADER = struct.Struct("=IHHII")
_NFGENMSG_SIZE = 4
#: milliseconds of quiet after a change before it is looked at: tools make several in a row
_QUIET = 100


class RuleWatch:
    """A thread that calls ``changed`` soon after somebody else's transactions.

    Works in the network namespace of the thread that makes it.
    """

    def __init__(self, changed: Callable[[], None], overlooked: Callable[[str], bool]) -> None:
        """``changed`` is called in the watch's own thread, but not for transactions that touch
        ``overlooked`` tables alone. Raises :class:`OSError`.
        """
        self._changed = changed
        self._overlooked = overlooked
        #: the tables that the transaction being told touches
        self._touched: set[str] = set()
        self._stop, self._stopped = socket.socketpair()
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, netlink.NETLINK_NETFILTER
        )
        self._socket.bind((0, 0))
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, _NFNLGRP_NFTABLES)
        self._thread = threading.Thread(target=self._run, name="sampan-rules", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening; not to be called from ``changed``."""
        self._stop.close()
        self._thread.join()
        self._stopped.close()
        self._socket.close()

    def _run(self) -> None:
        poll = select.poll()
        for sock in (self._socket, self._stopped):
            poll.register(sock, select.POLLIN)
        pending = False
        while True:
            ready = {fd for fd, _ in poll.poll(_QUIET if pending else None)}
            if self._stopped.fileno() in ready:
                return
            if ready:
                pending = self._heard() or pending
            else:
                pending = False
                # What cannot be put right now is tried again at the next change of ours.
                with contextlib.suppress(SampanError):
                    self._changed()

    def _heard(self) -> bool:
        """Whether somebody else changed something that matters."""
        try:
            data = self._socket.recv(1 << 16)
        except BlockingIOError:
            return False
        except OSError:  # ENOBUFS: more than could be told
            self._touched.clear()
            return True
        found, offset = False, 0
        while offset + _HEADER.size <= len(data):
            size, kind, *_ = _HEADER.unpack_from(data, offset)
            body = data[offset + _HEADER.size : offset + size]
            if kind == _NEWGEN:
                found = found or not (_is_ours(body) or self._of_no_concern())
                self._touched.clear()
            else:
                self._touched.add(_table(body))
            offset += max(_HEADER.size, size + 3 & ~3)
        return found

    def _of_no_concern(self) -> bool:
        """Whether the transaction just told touched overlooked tables alone."""
        return bool(self._touched) and all(map(self._overlooked, self._touched))


def _table(body: bytes) -> str:
    """The table a message is about, "" when it tells none."""
    told = netlink.attributes(body, _NFGENMSG_SIZE).get(_NFTA_TABLE, b"")
    return told.rstrip(b"\0").decode(errors="replace")


def _is_ours(body: bytes) -> bool:
    """Whether a thread of this process made the generation (the kernel tells the thread's id)."""
    told = netlink.attributes(body, _NFGENMSG_SIZE).get(_NFTA_GEN_PROC_PID, b"")
    return os.path.exists(f"/proc/self/task/{int.from_bytes(told, 'big')}")
