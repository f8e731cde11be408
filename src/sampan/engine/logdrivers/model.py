"""The interface between the engine and log drivers; see :mod:`sampan.engine.logdrivers`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Which piece of a line longer than 16 KiB a message is; ``ordinal`` counts from 1."""

    of: str
    ordinal: int
    last: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LogMessage:
    """One line without its newline, from ``stdout`` or ``stderr``; ``time`` in Unix nanoseconds."""

    line: str
    stream: str
    time: int
    piece: Piece | None = None

    @property
    def error(self) -> bool:
        """Whether the program wrote it to stderr."""
        return self.stream == "stderr"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogInfo:
    """What a driver may tell about the container. ``extra``: labels and variables asked for."""

    container_id: str
    container_name: str
    image_id: str
    image_name: str
    command: str
    created: int
    hostname: str
    tag: str
    extra: Mapping[str, str]
    options: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """After a failed send: wait ``delay`` seconds, twice as long each time up to ``limit``.

    After ``attempts`` failures (0: never) the messages are given up.
    """

    delay: float = 1.0
    limit: float = 30.0
    attempts: int = 0


class LogSink(Protocol):
    """An open way to where messages go. Used by one task at a time."""

    async def send(self, messages: Sequence[LogMessage]) -> None:
        """Send all of them, in order. Raises :class:`OSError` when that may not have worked."""
        ...

    async def aclose(self) -> None:
        """Release it (idempotent); errors are of no interest any more."""
        ...


class LogDriver(Protocol):
    """A kind of destination. Stateless; methods may be called for any number of containers."""

    #: names of the driver's own options
    options: frozenset[str]

    def check(self, options: Mapping[str, str]) -> None:
        """Raise :class:`sampan.errors.InvalidParameter` when the options do not make sense."""
        ...

    def lazy(self, options: Mapping[str, str]) -> bool:
        """Whether a container may start although the destination cannot be reached."""
        ...

    def retry(self, options: Mapping[str, str]) -> Retry:
        """What to do when a send fails."""
        ...

    async def open(self, info: LogInfo) -> LogSink:
        """Connect. Raises :class:`OSError`."""
        ...
