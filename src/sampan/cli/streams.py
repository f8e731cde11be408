"""Moving bytes between this process's standard streams and a container's.

One poll loop, no threads: standard input goes out as fast as the daemon takes it, output comes in
whatever happens to input, signals are handled in between. At most :data:`INPUT_LIMIT` bytes of
input wait in memory.
"""

from __future__ import annotations

import os
import select
from typing import NamedTuple

from sampan.cli.detach_keys import KeyFilter
from sampan.cli.frames import STDERR, SYSTEM_ERROR, Demultiplexer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sampan.cli.signals import SignalPipe
    from sampan.client.http import Stream

INPUT_LIMIT = 64 * 1024
_CHUNK = 64 * 1024


class Plan(NamedTuple):
    """What is connected to what."""

    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool
    #: The detach sequence; empty when typed bytes are not looked at.
    keys: bytes = b""


def write_all(descriptor: int, data: bytes) -> None:
    """Write everything. Raises ``OSError``."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


class Pump:
    """Moves bytes until the container's output ends or the user detaches."""

    def __init__(
        self, stream: Stream, plan: Plan, signals: SignalPipe, on_signal: Callable[[int], None]
    ) -> None:
        self._stream = stream
        self._plan = plan
        self._signals = signals
        self._on_signal = on_signal
        self._frames = Demultiplexer()
        self._filter = KeyFilter(plan.keys)
        self._input = b""
        self._reading = plan.stdin
        self._half_closed = False
        self._detached = False

    def run(self) -> bool:
        """True when the user detached, False when the output ended.

        Raises ``OSError`` when this process's own streams fail.
        """
        self._stream.socket.setblocking(False)
        self._write_output(self._stream.take_early())
        if not self._plan.stdin:
            self._half_close()
        while not self._detached:
            events = self._poll()
            if self._signals.fileno() in events:
                for number in self._signals.take():
                    self._on_signal(number)
            if 0 in events and self._reading:
                self._read_input()
            if self._input:
                self._send_input()
            if self._stream.fileno() in events and not self._receive():
                break
        return self._detached

    def _poll(self) -> dict[int, int]:
        poll = select.poll()
        poll.register(self._signals.fileno(), select.POLLIN)
        mask = select.POLLIN | (select.POLLOUT if self._input else 0)
        poll.register(self._stream.fileno(), mask)
        if self._reading and len(self._input) < INPUT_LIMIT:
            poll.register(0, select.POLLIN)
        return dict(poll.poll())

    def _read_input(self) -> None:
        data = os.read(0, INPUT_LIMIT)
        if not data:
            self._reading = False
            self._half_close()
            return
        if self._plan.keys:
            data, self._detached = self._filter.feed(data)
        self._input += data

    def _half_close(self) -> None:
        if not self._input and not self._half_closed:
            self._half_closed = True
            self._stream.close_write()

    def _send_input(self) -> None:
        try:
            sent = self._stream.socket.send(self._input)
        except BlockingIOError:
            return
        except OSError:
            # The container does not read any more; its output still counts.
            self._input, self._reading = b"", False
            return
        self._input = self._input[sent:]
        if not self._reading:
            self._half_close()

    def _receive(self) -> bool:
        """Read what is there. False at the end of the stream."""
        try:
            data = self._stream.socket.recv(_CHUNK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self._write_output(data)
        return bool(data)

    def _write_output(self, data: bytes) -> None:
        if self._plan.tty:
            if data and self._plan.stdout:
                write_all(1, data)
            return
        for stream, piece in self._frames.feed(data):
            if stream in (STDERR, SYSTEM_ERROR):
                if self._plan.stderr:
                    write_all(2, piece)
            elif self._plan.stdout:
                write_all(1, piece)


def wait_readable(descriptor: int, signals: SignalPipe, on_signal: Callable[[int], None]) -> None:
    """Wait until a descriptor is readable, handling signals meanwhile."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    poll.register(signals.fileno(), select.POLLIN)
    while True:
        ready = dict(poll.poll())
        if signals.fileno() in ready:
            for number in signals.take():
                on_signal(number)
        if descriptor in ready:
            return
