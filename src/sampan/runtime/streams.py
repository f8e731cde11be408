"""A process's standard streams in the monitor: to the log and to any number of attach clients.

Output is read as fast as the slowest of log and clients takes it. A client may fall behind by
``BUFFER_LIMIT`` bytes; beyond that the process's pipes are left full until it catches up, but only
for so long: a client that takes nothing for ``patience`` seconds is dropped, so that it can neither
stall a container for ever nor make the monitor grow.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import struct
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol

from sampan.kernel import tty
from sampan.runtime.attach_client import STDERR, STDOUT, AttachClient
from sampan.runtime.loop import HANGUP, READ, WRITE, Callback, Loop

BUFFER_LIMIT = 1 << 20
READ_SIZE = 128 * 1024
PIPE_SIZE = 256 * 1024
_INPUT_SIZE = 64 * 1024
_F_SETPIPE_SZ = 1031
_NAMES = {STDOUT: "stdout", STDERR: "stderr"}


class Sink(Protocol):
    """Where output is kept: :class:`sampan.runtime.log_file.Log`."""

    def write(self, stream: str, data: bytes) -> None: ...
    def finish(self, stream: str) -> None: ...


class Ends(NamedTuple):
    """Descriptors of one process's standard streams: (stdin, stdout, stderr) on both sides.

    ``ours`` are -1 where there is no pipe.
    """

    ours: tuple[int, int, int]
    child: tuple[int, int, int]


def open_ends(*, terminal: bool, stdin: bool, output: bool) -> Ends:
    """Pipes where wanted, the null device elsewhere. A terminal is made later, inside.

    The caller closes all of them (:func:`close_ends`). Raises :class:`OSError`.
    """
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    ours, child = [-1, -1, -1], [null, null, null]
    if stdin and not terminal:
        child[0], ours[0] = os.pipe2(os.O_CLOEXEC)
    if output and not terminal:
        for stream in (STDOUT, STDERR):
            ours[stream], child[stream] = os.pipe2(os.O_CLOEXEC)
            with contextlib.suppress(OSError):  # the user's pipe quota: the default will do
                fcntl.fcntl(ours[stream], _F_SETPIPE_SZ, PIPE_SIZE)
    if null not in child:
        os.close(null)
    return Ends((ours[0], ours[1], ours[2]), (child[0], child[1], child[2]))


def close_ends(fds: tuple[int, int, int]) -> None:
    """Close one side."""
    for fd in set(fds) - {-1}:
        os.close(fd)


class Streams:
    """The streams of one process, served from our ends of them."""

    def __init__(
        self,
        loop: Loop,
        ends: tuple[int, int, int],
        *,
        terminal: bool,
        stdin: bool,
        stdin_once: bool,
        log: Sink | None,
        patience: float,
        on_end: Callable[[], None],
        held: bool = False,
        manager: int = -1,
        input_ended: bool = False,
        ended: bool = False,
    ) -> None:
        """``ends``: :attr:`Ends.ours`, which become this object's.

        ``stdin``: clients' input is wanted; ``stdin_once``: the first client's end of input is the
        process's. ``on_end`` is called once when all output has ended. With a ``terminal`` there
        are no pipes: see :meth:`use_terminal`. ``held`` output is not read before :meth:`release`:
        who attaches until then gets it all. ``manager``, ``input_ended``, ``ended``: as another
        object left them.
        """
        self._loop = loop
        self._log = log
        self._patience = patience
        self._on_end = on_end
        self._stdin_once = stdin_once
        self.terminal = terminal
        self._wants_input = stdin
        self._manager = -1
        self._stdin = ends[0]
        self._outputs: dict[int, int] = {}
        self._clients: list[AttachClient] = []
        self._input: deque[bytes] = deque()
        self._input_ends = input_ended
        self._stdin_watched = False
        self._paused = False
        self._held: list[tuple[int, Callback]] | None = [] if held else None
        self._ended = ended
        if self._stdin >= 0:
            os.set_blocking(self._stdin, False)
        for stream in (STDOUT, STDERR):
            fd = ends[stream]
            if fd >= 0:
                os.set_blocking(fd, False)
                self._outputs[fd] = stream
                self._read_from(fd, partial(self._pipe_ready, fd))
        if manager >= 0:
            self.use_terminal(manager)

    @property
    def ends(self) -> tuple[tuple[int, int, int], int]:
        """((stdin, stdout, stderr), manager) as they are now, -1 for what is closed."""
        by_stream = {stream: fd for fd, stream in self._outputs.items() if fd != self._manager}
        stdin = -1 if self.terminal else self._stdin
        return (stdin, by_stream.get(STDOUT, -1), by_stream.get(STDERR, -1)), self._manager

    @property
    def at_rest(self) -> bool:
        """Whether nothing is kept here that descriptors alone would lose."""
        return not self._clients and not self._input and not self._paused and self._held is None

    @property
    def input_ended(self) -> bool:
        """Whether the process gets no more input."""
        return self._input_ends

    def use_terminal(self, manager: int) -> None:
        """Take the terminal's manager (a descriptor that becomes ours)."""
        os.set_blocking(manager, False)
        self._manager = manager
        self._outputs[manager] = STDOUT
        if self._wants_input:
            self._stdin = manager
        self._read_from(manager, self._terminal_ready)
        self._pump_input()

    def release(self) -> None:
        """Read output from now on."""
        held, self._held = self._held or [], None
        for fd, ready in held:
            if fd in self._outputs:
                self._loop.add(fd, READ, ready)

    def _read_from(self, fd: int, ready: Callback) -> None:
        if self._held is None:
            self._loop.add(fd, READ, ready)
        else:
            self._held.append((fd, ready))

    def resize(self, height: int, width: int) -> bool:
        """Set the terminal's size; False when there is none."""
        if self._manager < 0:
            return False
        tty.set_window_size(self._manager, height, width)
        return True

    @property
    def accepts_input(self) -> bool:
        """Whether more input may be read from clients."""
        waiting = sum(map(len, self._input))
        return waiting < _INPUT_SIZE and not self._input_ends

    @property
    def waits_for_input(self) -> bool:
        """Whether input is open and nobody is there to end it."""
        return self._wants_input and not self._input_ends

    @property
    def ended(self) -> bool:
        """Whether all output has ended."""
        return self._ended

    def attach(
        self, sock: socket.socket, *, stdin: bool, stdout: bool, stderr: bool, early: bytes = b""
    ) -> None:
        """Serve a connection from here on; ``early`` is input that came with its request."""
        sock.setblocking(False)
        client = AttachClient(sock, stdin=stdin and self._wants_input, stdout=stdout, stderr=stderr)
        self._clients.append(client)
        self._loop.add(
            sock.fileno(), self._events(client), lambda events: self._client(client, events)
        )
        if early and client.stdin:
            self._input.append(early)
            self._pump_input()
        if self._ended:
            self._finish_client(client)

    def close_stdin(self) -> None:
        """End the process's input once what was sent has been written. A terminal stays."""
        if self.terminal:
            return
        self._input_ends = True
        self._pump_input()

    def _events(self, client: AttachClient) -> int:
        """What to wait for: room to send, something to read. A hang-up shows in any case."""
        reading = client.reading and (self.accepts_input or not client.stdin)
        return (READ if reading else 0) | (WRITE if client.queue else 0)

    def _watch(self, client: AttachClient) -> None:
        self._loop.change(client.sock.fileno(), self._events(client))

    def _pipe_ready(self, fd: int, _events: int) -> None:
        self._readable(fd)

    def _readable(self, fd: int) -> None:
        try:
            data = os.read(fd, READ_SIZE)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.EIO:  # EIO: a terminal nobody holds open any more
                raise
            data = b""
        if data:
            self._put_out(self._outputs[fd], data)
        else:
            self._output_ended(fd)

    def _terminal_ready(self, events: int) -> None:
        if events & WRITE:
            self._pump_input()
        if events & (READ | HANGUP) and self._manager >= 0:
            self._readable(self._manager)

    def _put_out(self, stream: int, data: bytes) -> None:
        if self._log is not None:
            self._log.write(_NAMES[stream], data)
        if not self._clients:
            return
        frame = data if self.terminal else struct.pack(">BxxxI", stream, len(data)) + data
        for client in list(self._clients):
            if not client.wants(stream):
                continue
            if not client.send(frame):
                self._drop(client)
            elif client.queue:
                self._behind(client)

    def _behind(self, client: AttachClient) -> None:
        self._watch(client)
        if client.buffered > BUFFER_LIMIT and not self._paused:
            self._pause(True)
        if client.buffered > BUFFER_LIMIT:
            self._loop.deadline(client, self._patience, lambda: self._drop(client))

    def _pause(self, paused: bool) -> None:
        self._paused = paused
        for fd in self._outputs:
            self._loop.change(fd, self._output_events(fd))

    def _output_events(self, fd: int) -> int:
        writing = WRITE if fd == self._stdin and self._stdin_watched else 0
        return (0 if self._paused else READ) | writing

    def _client(self, client: AttachClient, events: int) -> None:
        if client.queue:
            before = client.buffered
            if not client.flush():
                self._drop(client)
                return
            if client.buffered < before:
                self._caught_up(client)
        if client in self._clients and events & (READ | HANGUP):
            self._from_client(client, gone=bool(events & HANGUP))
        if client in self._clients:
            self._watch(client)

    def _caught_up(self, client: AttachClient) -> None:
        """It took something: its time starts anew, or it is no longer behind."""
        if client.buffered > BUFFER_LIMIT:
            self._loop.deadline(client, self._patience, lambda: self._drop(client))
        elif not self._ended:
            self._loop.cancel(client)
        self._resume()
        if self._ended and not client.queue:
            self._finish_client(client)

    def _resume(self) -> None:
        if self._paused and all(c.buffered <= BUFFER_LIMIT // 2 for c in self._clients):
            self._pause(False)

    def _from_client(self, client: AttachClient, *, gone: bool) -> None:
        """Input, or the end of it. When the peer has gone, what it sent before still counts."""
        while client.reading:
            try:
                data = client.sock.recv(_INPUT_SIZE)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            if not data:
                client.reading = False
                self._client_ended(client)
            elif client.stdin:
                self._input.append(data)
            if not gone:
                break
        if client.stdin:
            self._pump_input()
        if gone:
            self._drop(client)

    def _client_ended(self, client: AttachClient) -> None:
        if client.stdin and self._stdin_once:
            self.close_stdin()

    def _pump_input(self) -> None:
        """Write what clients sent, as far as the process takes it."""
        accepted = self.accepts_input
        while self._input and self._stdin >= 0:
            data = self._input[0]
            try:
                written = os.write(self._stdin, data)
            except BlockingIOError:
                break
            except OSError:  # EPIPE: the process does not read any more
                self._end_stdin()
                break
            if written < len(data):
                self._input[0] = data[written:]
            else:
                self._input.popleft()
        if self._input_ends and not self._input:
            self._end_stdin()
        self._watch_stdin(bool(self._input))
        if self.accepts_input != accepted:
            for client in self._clients:
                self._watch(client)

    def _watch_stdin(self, waiting: bool) -> None:
        """Wait for room in the process's input, or stop doing so."""
        if self._stdin < 0 or waiting == self._stdin_watched:
            return
        self._stdin_watched = waiting
        if self.terminal:
            self._loop.change(self._stdin, self._output_events(self._stdin))
        elif waiting:
            self._loop.add(self._stdin, WRITE, lambda _: self._pump_input())
        else:
            self._loop.remove(self._stdin)

    def _end_stdin(self) -> None:
        self._input.clear()
        self._input_ends = True
        if self._stdin >= 0 and not self.terminal:
            self._loop.remove(self._stdin)
            os.close(self._stdin)
        self._stdin = -1
        self._stdin_watched = False

    def _output_ended(self, fd: int) -> None:
        stream = self._outputs.pop(fd)
        self._loop.remove(fd)
        if fd == self._manager:
            self._manager = -1
            self._stdin = -1
        os.close(fd)
        if self._log is not None:
            self._log.finish(_NAMES[stream])
        if not self._outputs:
            self._end()

    def _end(self) -> None:
        if self._ended:
            return
        self._ended = True
        for client in list(self._clients):
            if not client.queue:
                self._finish_client(client)
            else:
                self._loop.deadline(client, self._patience, partial(self._drop, client))
        self._on_end()

    def _finish_client(self, client: AttachClient) -> None:
        with contextlib.suppress(OSError):
            client.sock.shutdown(socket.SHUT_WR)
        self._drop(client)

    def _drop(self, client: AttachClient) -> None:
        if client not in self._clients:
            return
        self._clients.remove(client)
        self._loop.cancel(client)
        self._loop.remove(client.sock.fileno())
        client.sock.close()
        self._resume()
        if client.reading:
            self._client_ended(client)

    @property
    def idle(self) -> bool:
        """Whether every client has got everything and gone."""
        return not self._clients

    def end_output(self) -> None:
        """Stop waiting for output (somebody outside may hold the pipes open for ever)."""
        for fd in list(self._outputs):
            self._drain(fd)
        if not self._ended:
            self._end()

    def _drain(self, fd: int) -> None:
        """Read what is there, without waiting, then close."""
        for _ in range(PIPE_SIZE // 4096):
            if fd not in self._outputs:
                return
            try:
                data = os.read(fd, READ_SIZE)
            except OSError:
                break
            if not data:
                break
            self._put_out(self._outputs[fd], data)
        if fd in self._outputs:
            self._output_ended(fd)

    def close(self) -> None:
        """Give everything up: streams end, clients are dropped."""
        for client in list(self._clients):
            self._drop(client)
        self._end_stdin()
        for fd in list(self._outputs):
            self._loop.remove(fd)
            os.close(fd)
        self._outputs.clear()
        self._ended = True
