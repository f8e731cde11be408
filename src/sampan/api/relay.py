"""Between a client and the monitor of a container: bytes both ways, never stalling the container.

The monitor's socket is read the moment it has something: straight to the client while that takes
it, into the client's :class:`~sampan.api.spool.Spool` when it does not. Input goes the other way
with ordinary flow control. Each side may end its half alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, cast

from sampan.api.frames import frame
from sampan.api.spool import Spool
from sampan.engine.options import Attachment
from sampan.errors import SampanError, StartFailed

log = logging.getLogger("sampan.api")

#: bytes of input kept for a container that has not started yet
EARLY_INPUT = 64 << 10


class Client(Protocol):
    """The client's end: where output goes, and a switch for its input."""

    lost: asyncio.Event

    def offer(self, data: bytes) -> bool:
        """Send at once if nothing is in the way; False when the client is not keeping up."""
        ...

    async def send(self, data: bytes) -> None:
        """Send, waiting until the client can take more."""
        ...

    def pause_input(self) -> None:
        """Stop delivering input."""
        ...

    def resume_input(self) -> None:
        """Deliver input again."""
        ...


class Relay(asyncio.Protocol):
    """One attached client: the protocol of the monitor's socket; ``input_*`` take the client's.

    Use :meth:`run` once; it returns when the output has been delivered, the client has gone or has
    asked to detach. With ``report_failure`` what keeps a program from starting is told on the
    stream, as dockerd does for exec, whose answer has been sent before it starts. ``reframe`` turns
    output as the monitor sends it into what the client reads, where the two differ.
    """

    def __init__(
        self,
        client: Client,
        attachment: Attachment,
        spool_directory: Path,
        *,
        report_failure: bool = False,
        reframe: Callable[[bytes], bytes] | None = None,
    ) -> None:
        self._report_failure = report_failure
        self._reframe = reframe
        self._client = client
        self._attachment = attachment
        self._spool = Spool(spool_directory, on_room=self._caught_up)
        self._monitor: asyncio.Transport | None = None
        self._early = bytearray()
        self._input_ended = False
        self._sending = True
        self._behind = False
        #: whether the client typed its detach keys
        self.detach_requested = False
        self._over = asyncio.Event()

    async def run(self) -> None:
        """Converse until either side is done; the attachment is released in any case."""
        try:
            async with asyncio.TaskGroup() as group:
                tasks = {
                    group.create_task(self._converse()),
                    group.create_task(self._client.lost.wait()),
                    group.create_task(self._over.wait()),
                    group.create_task(self._spool.spill()),
                }
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in tasks:
                    task.cancel()
        except* ConnectionError as problems:
            log.debug("a client went away: %s", problems.exceptions[0])
        except* SampanError as problems:
            log.warning("an attached stream ended early: %s", problems.exceptions[0])
        finally:
            if self._monitor is not None:
                self._monitor.close()
            await self._spool.close()
            await self._attachment.aclose()

    async def _converse(self) -> None:
        if self._attachment.backlog is not None:
            async for chunk in self._attachment.backlog:
                await self._client.send(chunk)
        try:
            socket = await self._attachment.open()
        except SampanError as problem:
            if self._report_failure:
                text = failure_text(problem, tty=self._attachment.tty)
                await self._client.send(self._reframe(text) if self._reframe else text)
            elif not isinstance(problem, StartFailed):  # which whoever starts it is told
                raise
            return
        if socket is None:
            return
        loop = asyncio.get_running_loop()
        self._sending = False
        await loop.create_connection(lambda: self, sock=socket)
        while data := await self._spool.pop():
            self._sending = True
            await self._client.send(data)
            self._sending = False
        await self._attachment.output_ended()

    # The monitor's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The monitor is plugged: hand over what the client typed meanwhile."""
        self._monitor = cast(asyncio.Transport, transport)
        if self._early:
            early, self._early = bytes(self._early), bytearray()
            self._write(early)
            self._client.resume_input()
        if self._input_ended:
            self._end_input()

    def data_received(self, data: bytes) -> None:
        """Output of the container."""
        if self._reframe is not None:
            data = self._reframe(data)
        if not self._sending and self._spool.empty and self._client.offer(data):
            return
        try:
            self._spool.push(data)
        except SampanError as problem:
            log.warning("giving up a client: %s", problem.message)
            self._over.set()
            return
        if self._spool.behind and self._monitor is not None and not self._behind:
            self._behind = True
            self._monitor.pause_reading()

    def _caught_up(self) -> None:
        self._behind = False
        if self._monitor is not None and not self._monitor.is_closing():
            self._monitor.resume_reading()

    def eof_received(self) -> bool:
        """The container's output has ended."""
        self._spool.end()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """The monitor has gone, or has given this client up."""
        self._spool.end()

    def pause_writing(self) -> None:
        """The program does not read its input fast enough."""
        self._client.pause_input()

    def resume_writing(self) -> None:
        """The program reads again."""
        self._client.resume_input()

    # The client's side.

    def input_received(self, data: bytes) -> None:
        """Input of the client."""
        if not self._attachment.stdin:
            return
        if self._monitor is None:
            self._early += data
            if len(self._early) > EARLY_INPUT:
                self._client.pause_input()
        else:
            self._write(data)

    def input_ended(self) -> None:
        """The client has ended its input (and may go on reading)."""
        self._input_ended = True
        if self._monitor is not None:
            self._end_input()

    def _write(self, data: bytes) -> None:
        data, detach = self._attachment.feed(data)
        if data and self._monitor is not None and not self._monitor.is_closing():
            self._monitor.write(data)
        if detach:
            self.detach_requested = True
            self._over.set()

    def _end_input(self) -> None:
        monitor = self._monitor
        if self._attachment.stdin and monitor is not None and not monitor.is_closing():
            monitor.write_eof()


def failure_text(problem: SampanError, *, tty: bool) -> bytes:
    """Why a program did not start, as a line of the stream's standard output."""
    text = f"{problem.message}\r\n".encode()
    return text if tty else frame(1, text)
