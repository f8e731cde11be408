"""Arguments of the engine's methods that are more than a flag or two, and what streams return."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from typing import Protocol

from sampan.wire.options import (
    AttachOptions,
    CommitOptions,
    Filters,
    ImportOptions,
    LogsOptions,
    PathStat,
    RegistryAuth,
)

__all__ = [
    "AttachOptions",
    "Attachment",
    "CommitOptions",
    "Filters",
    "ImportOptions",
    "LogsOptions",
    "PathStat",
    "RegistryAuth",
    "Stream",
]


class Stream(Protocol):
    """A stream of output: framed as attach frames it, or raw when ``tty``.

    Obtaining one has already checked everything that can be refused, so a server may send its
    headers before the first chunk. Leaving the iteration early releases what it held;
    :meth:`aclose` does so explicitly.
    """

    tty: bool

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    async def aclose(self) -> None: ...


class Attachment(Protocol):
    """A client's end of a container's (or exec's) standard streams.

    Story: the engine returns it at once, also for a container that has not started; the server
    answers its headers; then awaits :meth:`open`, which first yields nothing but waits until the
    container's monitor is plugged, always before the program runs, so no byte is missed.
    """

    tty: bool
    #: bytes to send before the live stream (``logs=1``), or None
    backlog: Stream | None
    #: whether the client's bytes are the program's standard input
    stdin: bool

    async def open(self) -> socket.socket | None:
        """The non-blocking SOCK_STREAM to the monitor; the caller closes it.

        Read it for output (framed, or raw when ``tty``) until end of file; write for stdin;
        ``shutdown(SHUT_WR)`` is end of input. None when there is no live stream (``stream=0``, or
        the container was removed before it started).
        """
        ...

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """Pass the client's input through the detach-key scanner.

        Returns what to write to the program and whether the client asked to detach.
        """
        ...

    async def output_ended(self) -> None:
        """Wait until the program's end is known, if that is what ended its output.

        To be awaited before the client's stream ends: what it asks next must show the end.
        """
        ...

    async def detached(self) -> None:
        """Tell the engine that the client detached by its keys (event ``detach``)."""
        ...

    async def aclose(self) -> None:
        """Give up: unplug a pending attachment. Safe to call at any time, repeatedly."""
        ...
