"""Arguments of the engine's methods that are more than a flag or two, and what streams return."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from sampan.wire.container import ContainerConfig

Filters = Mapping[str, list[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogsOptions:
    """What ``logs`` returns; times are Unix seconds with nanosecond fraction, 0 is no bound.

    ``tail`` is the number of last lines, ``None`` for all of them.
    """

    stdout: bool = True
    stderr: bool = True
    since: float = 0.0
    until: float = 0.0
    timestamps: bool = False
    tail: int | None = None
    follow: bool = False
    details: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachOptions:
    """Which streams to attach; ``logs`` replays the log first, ``stream`` goes on live."""

    stdin: bool = False
    stdout: bool = True
    stderr: bool = True
    logs: bool = False
    stream: bool = True
    detach_keys: str = "ctrl-p,ctrl-q"


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitOptions:
    """How ``commit`` makes an image of a container; ``changes`` are Dockerfile instructions."""

    repo: str = ""
    tag: str = ""
    comment: str = ""
    author: str = ""
    pause: bool = True
    changes: tuple[str, ...] = ()
    config: ContainerConfig | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportOptions:
    """How ``import`` makes an image of a root file system archive."""

    repo: str = ""
    tag: str = ""
    message: str = ""
    changes: tuple[str, ...] = ()
    platform: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryAuth:
    """Credentials of one registry, as ``X-Registry-Auth`` carries them; never logged."""

    username: str = ""
    password: str = field(default="", repr=False)
    server_address: str = ""
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class PathStat:
    """What a path inside a container is (``X-Docker-Container-Path-Stat``).

    ``mode`` is Go's ``os.FileMode``, ``mtime`` RFC 3339 with nanoseconds.
    """

    name: str
    size: int
    mode: int
    mtime: str
    link_target: str


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

    async def detached(self) -> None:
        """Tell the engine that the client detached by its keys (event ``detach``)."""
        ...

    async def aclose(self) -> None:
        """Give up: unplug a pending attachment. Safe to call at any time, repeatedly."""
        ...
