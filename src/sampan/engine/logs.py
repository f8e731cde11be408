"""Log streams: what was logged, then what is being logged, to one client."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from pathlib import Path

from sampan.engine import clock, localfile, logfile
from sampan.engine.core import Core
from sampan.engine.logfile import LogLine, Position, Renderer
from sampan.engine.options import LogsOptions
from sampan.engine.table import Container
from sampan.errors import InvalidParameter, Unsupported
from sampan.kernel import inotify

#: seconds between readings of a busy log: each reading then takes many lines at once
_GATHER = 0.02
#: seconds of a program's life in which a log that is not followed waits for what it prints
_FIRST = 0.1


class LogStream:
    """A container's log as :class:`sampan.engine.options.Stream`."""

    def __init__(self, core: Core, container: Container, options: LogsOptions) -> None:
        self.tty = bool(container.record.config.tty)
        self._core = core
        self._container = container
        self._options = options
        self._path = Path(container.record.log_path)
        self._renderer = Renderer(options=options, tty=self.tty)
        self._iterator = self._read()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._iterator

    async def aclose(self) -> None:
        """Release files and watches."""
        with contextlib.suppress(RuntimeError):
            await self._iterator.aclose()

    async def _read(self) -> AsyncGenerator[bytes, None]:
        local = log_driver(self._container) != "json-file"
        changes = Changes(self._path.parent) if self._options.follow else None
        position = Position(-1)
        try:
            if changes is None:
                await self._begun()
            source = _batches(self._path, self._options.tail, local=local)
            async for batch in self._core.threads.iterate(source):
                if isinstance(batch, Position):
                    position = batch
                    continue
                data, over = self._renderer.render(batch)
                if data:
                    yield data
                if over:
                    return
            while changes is not None:
                running = self._running()
                lines, position = await self._core.threads.run(more, self._path, position, local)
                data, over = self._renderer.render(lines)
                if data:
                    yield data
                if over or (not running and not lines):
                    return
                if not lines:
                    await changes.wait(self._container, self._until())
                    if self._past():
                        return
                else:
                    await asyncio.sleep(_GATHER)
        finally:
            position.close()
            if changes is not None:
                changes.close()

    async def _begun(self) -> None:
        """Let a program that has just started print what it begins with, or end.

        Clients start a container and ask for its log at once. dockerd takes some tenths of a
        second from the program's first instruction to that answer, and they count on it.
        """
        run = self._container.run
        age = (clock.now() - self._container.state.started_at) / 1e9
        if run is not None and 0 <= age < _FIRST:
            await asyncio.wait([run.ended], timeout=_FIRST - age)

    def _running(self) -> bool:
        return self._container.run is not None

    def _until(self) -> float | None:
        return max(0.0, self._options.until - time.time()) if self._options.until else None

    def _past(self) -> bool:
        return self._until() == 0.0


def log_driver(container: Container) -> str:
    """The container's log driver; Unsupported when its log cannot be read back."""
    config = container.record.host_config.log_config
    kind = (config.type if config else None) or "none"
    options = (config.config if config else None) or {}
    if not container.record.log_path or options.get("cache-disabled") == "true":
        raise Unsupported("configured logging driver does not support reading")
    return kind


def open_logs(core: Core, container: Container, options: LogsOptions) -> LogStream:
    """See :meth:`sampan.engine.containers.Containers.logs`."""
    if not options.stdout and not options.stderr:
        raise InvalidParameter("Bad parameters: you must choose at least one stream")
    log_driver(container)
    return LogStream(core, container, options)


def _batches(
    path: Path, tail: int | None, *, local: bool
) -> Iterator[Sequence[LogLine] | Position]:
    yield from localfile.blocks(path, tail) if local else _decoded(path, tail)


def _decoded(path: Path, tail: int | None) -> Iterator[list[LogLine] | Position]:
    for block in logfile.blocks(path, tail):
        yield block if isinstance(block, Position) else logfile.decode(block)


def more(path: Path, position: Position, local: bool) -> tuple[list[LogLine], Position]:
    """What was logged since, across rotations; bounded, so that a flood is sent in pieces."""
    lines: list[LogLine] = []
    if position.descriptor < 0:
        try:
            position = Position(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        except FileNotFoundError:
            return [], position
    while True:
        for block in localfile.read_on(position) if local else logfile.read_on(position):
            lines.extend(block if isinstance(block, list) else logfile.decode(block))
            if len(lines) > 16384:
                return lines, position
        following = logfile.successor(path, position)
        if following is None:
            return lines, position
        position.close()
        position = following


class Changes:
    """Being woken when a directory's files change."""

    def __init__(self, directory: Path) -> None:
        self._event = asyncio.Event()
        self._descriptor = inotify.inotify_init1()
        mask = inotify.IN_MODIFY | inotify.IN_MOVED_TO | inotify.IN_CREATE
        try:
            inotify.inotify_add_watch(self._descriptor, str(directory), mask)
        except OSError:
            os.close(self._descriptor)
            raise
        asyncio.get_running_loop().add_reader(self._descriptor, self._readable)

    def _readable(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._descriptor, 65536)
        self._event.set()

    async def wait(self, container: Container, limit: float | None) -> None:
        """Until something changed, the container's run has ended, or ``limit`` seconds passed."""
        run = container.run
        if run is None:
            return
        changed = asyncio.ensure_future(self._event.wait())
        ended = asyncio.ensure_future(run.finished.wait())
        try:
            await asyncio.wait((changed, ended), timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        finally:
            changed.cancel()
            ended.cancel()
        self._event.clear()

    def close(self) -> None:
        """Cease watching."""
        asyncio.get_running_loop().remove_reader(self._descriptor)
        os.close(self._descriptor)
