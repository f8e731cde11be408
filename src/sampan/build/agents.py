"""SSH agents inside steps: a socket of the step's own, passed on to the agent.

An agent's own socket has one owner and one mode, and is not ours to change; each step asks for its
own (reference.md, "RUN --mount=type=ssh").
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from sampan.dockerfile.run_mount import RunMount
from sampan.kernel.mount import descriptor

_CHUNK = 32 << 10
_MODE = 0o600
Relay: TypeAlias = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


@contextlib.asynccontextmanager
async def forwarded(agent: str, path: Path, mount: RunMount) -> AsyncIterator[None]:
    """A Unix socket at ``path``, owned as ``mount`` says, that is the one at ``agent``.

    It answers while the block lasts; the caller removes the file.
    """
    async with answered(partial(_relay, agent), _bound(path, mount)):
        yield


@contextlib.asynccontextmanager
async def answered(relay: Relay, sock: socket.socket) -> AsyncIterator[None]:
    """Have ``relay`` serve each connection to ``sock`` while the block lasts, no longer."""
    running: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(relay(reader, writer))
        running.add(task)
        task.add_done_callback(running.discard)

    server = await asyncio.start_unix_server(connected, sock=sock)
    try:
        yield
    finally:
        server.close()
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)


def _bound(path: Path, mount: RunMount) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    try:
        with descriptor(os.open(path.parent, os.O_PATH | os.O_DIRECTORY)) as parent:
            # unix(7): a socket's path has 108 bytes at most
            made.bind(f"/proc/self/fd/{parent}/{path.name}")
        os.chmod(path, _MODE if mount.mode is None else mount.mode)
        os.chown(path, mount.uid, mount.gid)
    except BaseException:
        made.close()
        raise
    return made


async def _relay(agent: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One conversation with the agent, until either side ends it."""
    with contextlib.suppress(OSError), contextlib.closing(writer):
        answers, questions = await asyncio.open_unix_connection(agent)
        with contextlib.closing(questions):
            sending = asyncio.ensure_future(_copy(reader, questions))
            try:
                await _copy(answers, writer)
            finally:
                sending.cancel()
                await asyncio.wait([sending])


async def _copy(source: asyncio.StreamReader, destination: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(_CHUNK):
            destination.write(data)
            await destination.drain()
        destination.write_eof()
