"""One client attached to a process, in its worker: what it gets and what it has not taken yet."""

from __future__ import annotations

import socket
from collections import deque

STDOUT, STDERR = 1, 2
_NOW = int(socket.MSG_DONTWAIT) | int(socket.MSG_NOSIGNAL)


class AttachClient:
    """One attached connection.

    ``stdin``, ``stdout``, ``stderr``: what it is attached to; ``reading``: it has not ended its
    side yet (what a client without stdin sends is thrown away).
    """

    __slots__ = ("buffered", "queue", "reading", "sock", "stderr", "stdin", "stdout")

    def __init__(self, sock: socket.socket, *, stdin: bool, stdout: bool, stderr: bool) -> None:
        self.sock = sock
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
        self.reading = True
        self.queue: deque[bytes] = deque()
        self.buffered = 0

    def wants(self, stream: int) -> bool:
        """Whether it gets this output stream."""
        return self.stdout if stream == STDOUT else self.stderr

    def send(self, data: bytes) -> bool:
        """Send now or keep for later; False when the peer is gone."""
        if not self.queue:
            try:
                sent = self.sock.send(data, _NOW)
            except BlockingIOError:
                sent = 0
            except OSError:
                return False
            if sent == len(data):
                return True
            data = data[sent:]
        self.queue.append(data)
        self.buffered += len(data)
        return True

    def flush(self) -> bool:
        """Send what was kept, as far as it goes; False when the peer is gone."""
        while self.queue:
            data = self.queue[0]
            try:
                sent = self.sock.send(data, _NOW)
            except BlockingIOError:
                return True
            except OSError:
                return False
            self.buffered -= sent
            if sent < len(data):
                self.queue[0] = data[sent:]
            else:
                self.queue.popleft()
        return True
