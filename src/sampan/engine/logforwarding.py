"""Sending containers' logs elsewhere: reads what the monitor wrote, in order, each line once.

How far a container's log was sent is kept beside its cache, so that sampand may go and come back;
after a crash the lines of the last second are sent again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from sampan.content.atomic import atomic_write
from sampan.engine import localfile, logconfig, logs
from sampan.engine.core import Core, log
from sampan.engine.localfile import LocalLine
from sampan.engine.logdrivers import LogDriver, LogInfo, LogMessage, LogSink, Piece
from sampan.engine.logfile import LogLine, Position, nanoseconds, rotated
from sampan.engine.table import Container
from sampan.errors import StartFailed, Unavailable

#: seconds between storing positions of a log that is being written
_SAVE = 1.0
#: seconds lines may gather before they are sent together
_GATHER = 0.02
#: lines sent at once
_BATCH = 1024
#: seconds the removal of a container waits for its last lines to be sent
_PATIENCE = 5.0


class _Place(msgspec.Struct, kw_only=True):
    """How far a log was sent: a file, an offset in it, and the time of the last line (ns)."""

    inode: int = 0
    offset: int = 0
    time: int = 0


class Forwarder:
    """Sends one container's log, through all its runs, in one task at a time."""

    def __init__(self, core: Core, container: Container, driver: LogDriver) -> None:
        """Nothing is opened yet."""
        self._core = core
        self._container = container
        self._driver = driver
        self._sink: LogSink | None = None
        self._task: asyncio.Task[None] | None = None
        self._path = Path(container.record.log_path)
        self._place = _Place()
        self._saved = 0.0
        self._stale = False

    async def connect(self) -> None:
        """Before a start: raises StartFailed when the destination cannot be reached."""
        info = self._info()
        if self._sink is not None or self._driver.lazy(info.options):
            return
        try:
            self._sink = await self._driver.open(info)
        except OSError as error:
            raise StartFailed(
                "failed to create task for container: failed to initialize logging driver: "
                f"{_reason(error)}"
            ) from error

    def follow(self) -> None:
        """Send what there is, and what comes while the container runs; returns at once."""
        if self._task is None or self._task.done():
            self._task = self._core.tasks.spawn(self._run(), f"log of {self._container.id[:12]}")

    async def finish(self, patience: float) -> None:
        """Wait at most ``patience`` seconds for everything to be sent; then stop."""
        task = self._task
        if task is not None and not task.done():
            await asyncio.wait((task,), timeout=patience)
            task.cancel()
            await asyncio.wait((task,))
        await self._close()

    async def _run(self) -> None:
        changes = logs.Changes(self._path.parent)
        position = Position(-1)
        try:
            backlog, position = await self._core.threads.run_long(self._resume)
            await self._send(backlog)
            while True:
                running = self._container.run is not None
                lines, position = await self._core.threads.run(
                    logs.more, self._path, position, True
                )
                if lines:
                    await self._send(lines)
                    self._reached(position, lines[-1])
                    continue
                if not running:
                    return
                await self._save(position)
                await changes.wait(self._container, _SAVE if self._stale else None)
                await asyncio.sleep(_GATHER)
        finally:
            changes.close()
            position.close()
            if self._stale:
                self._store()
            await self._close()

    def _reached(self, position: Position, last: LogLine) -> None:
        descriptor = position.descriptor
        self._place = _Place(
            inode=os.fstat(descriptor).st_ino,
            offset=os.lseek(descriptor, 0, os.SEEK_CUR) - len(position.rest),
            time=nanoseconds(last.time),
        )
        self._stale = True

    async def _save(self, position: Position) -> None:
        now = time.monotonic()
        if self._stale and now - self._saved >= _SAVE:
            await self._core.threads.run(self._store)
            self._saved, self._stale = now, False

    def _store(self) -> None:
        with contextlib.suppress(FileNotFoundError):  # the container is being removed
            atomic_write(self._state_file, msgspec.json.encode(self._place))

    @property
    def _state_file(self) -> Path:
        return self._path.with_name("log-position.json")

    def _resume(self) -> tuple[Sequence[LocalLine], Position]:
        """Unsent lines whose file cannot be found again, and where to go on. Blocks."""
        try:
            self._place = msgspec.json.decode(self._state_file.read_bytes(), type=_Place)
        except (FileNotFoundError, msgspec.DecodeError):
            self._place = _Place()
        for name in rotated(self._path):
            with contextlib.suppress(FileNotFoundError):
                if name.suffix != ".gz" and name.stat().st_ino == self._place.inode:
                    descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
                    os.lseek(descriptor, self._place.offset, os.SEEK_SET)
                    return [], Position(descriptor)
        backlog: list[LocalLine] = []
        position = Position(-1)
        for block in localfile.blocks(self._path, None):
            if isinstance(block, Position):
                position = block
            else:
                backlog += [line for line in block if nanoseconds(line.time) > self._place.time]
        return backlog, position

    async def _send(self, lines: Sequence[LogLine]) -> None:
        """Send lines, a batch at a time so that others get their turn."""
        for start in range(0, len(lines), _BATCH):
            await self._deliver([_message(line) for line in lines[start : start + _BATCH]])
            await asyncio.sleep(0)  # a destination that takes everything never made us wait

    async def _deliver(self, messages: Sequence[LogMessage]) -> None:
        """Send messages, again and again while the destination cannot be reached."""
        info = self._info()
        retry = self._driver.retry(info.options)
        delay, failures = retry.delay, 0
        while True:
            try:
                if self._sink is None:
                    self._sink = await self._driver.open(info)
                await self._sink.send(messages)
                return
            except OSError as error:
                await self._close()
                failures += 1
                name, reason = self._container.id[:12], _reason(error)
                if retry.attempts and failures > retry.attempts:
                    log.warning("%d lines of container %s lost: %s", len(messages), name, reason)
                    return
                if failures == 1:
                    log.warning("log of container %s is kept back: %s", name, reason)
            await asyncio.sleep(delay)
            delay = min(delay * 2, retry.limit)

    async def _close(self) -> None:
        sink, self._sink = self._sink, None
        if sink is not None:
            await sink.aclose()

    def _info(self) -> LogInfo:
        record = self._container.record
        options = _options(self._container)
        return LogInfo(
            container_id=record.id,
            container_name=record.name,
            image_id=record.image_id,
            image_name=record.image,
            command=" ".join([record.path, *record.args]),
            created=record.created,
            hostname=os.uname().nodename,
            tag=logconfig.expand_tag(options.get("tag") or "{{.ID}}", record),
            extra=logconfig.chosen(record, options),
            options=options,
        )


def _options(container: Container) -> Mapping[str, str]:
    config = container.record.host_config.log_config
    return (config.config if config else None) or {}


def _reason(error: OSError) -> str:
    return error.strerror or str(error) or "timed out"


def _message(line: LogLine) -> LogMessage:
    text = line.log
    ended = text.endswith("\n")
    piece = None
    if isinstance(line, LocalLine) and line.piece_of:
        piece = Piece(of=line.piece_of, ordinal=line.ordinal, last=ended)
    return LogMessage(
        line=text[:-1] if ended else text,
        stream=line.stream,
        time=nanoseconds(line.time),
        piece=piece,
    )


def forwarder(core: Core, container: Container) -> Forwarder | None:
    """The container's forwarder; None when its log stays here.

    Raises Unavailable when its driver cannot be loaded.
    """
    if container.forwarder is None:
        config = container.record.host_config.log_config
        driver = logconfig.forwarded((config.type if config else None) or "none")
        if driver is not None:
            container.forwarder = Forwarder(core, container, driver)
    return container.forwarder


async def connect(core: Core, container: Container) -> None:
    """Before a start: raises StartFailed when the log's destination cannot be reached."""
    found = forwarder(core, container)
    if found is not None:
        await found.connect()


def follow(core: Core, container: Container) -> None:
    """Send the container's log as far as there is one, and on while it runs."""
    try:
        found = forwarder(core, container)
    except Unavailable as error:
        log.warning("log of container %s is kept back: %s", container.id[:12], error.message)
        return
    if found is not None:
        found.follow()


async def finish(container: Container, patience: float = _PATIENCE) -> None:
    """Wait at most ``patience`` seconds for the container's log to be sent; then stop."""
    if container.forwarder is not None:
        await container.forwarder.finish(patience)
