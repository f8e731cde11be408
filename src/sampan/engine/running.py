"""``engine.run("debian", ["echo", "hi"])``: a program run to its end, its output in hand."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sampan.engine.options import Attachment, AttachOptions
from sampan.errors import NotFound, SampanError
from sampan.wire.run import OUTPUT_LIMIT, Completed, RunFailed, RunOptions, create_request

if TYPE_CHECKING:
    from sampan.engine.engine import Engine

__all__ = ["Completed", "RunFailed", "RunOptions", "create_request", "pull", "run"]


async def run(
    engine: Engine, image: str, command: str | Sequence[str] | None, options: RunOptions
) -> Completed:
    """Run to the end and remove the container, whatever happens; see :meth:`Engine.run`."""
    body = create_request(image, command, options)
    try:
        made = await engine.containers.create(body, options.get("name"))
    except NotFound:
        if not options.get("pull", True):
            raise
        await pull(engine, image)
        made = await engine.containers.create(body, options.get("name"))
    container = made.id or ""
    try:
        async with asyncio.timeout(options.get("timeout")):
            done = await _converse(engine, container, options)
    finally:
        with contextlib.suppress(NotFound):
            await engine.containers.remove(container, force=True, volumes=True)
    if options.get("check") and done.exit_code:
        told = done.stderr.strip().rpartition("\n")[2]
        raise RunFailed(f"exit code {done.exit_code}" + (f": {told}" if told else ""))
    return done


async def pull(engine: Engine, image: str) -> None:
    """Pull an image; raises NotFound with the registry's words when that fails."""
    async for progress in await engine.images.pull(image):
        if "error" in progress:
            raise NotFound(str(progress["error"]))


async def _converse(engine: Engine, container: str, options: RunOptions) -> Completed:
    attachment = await engine.containers.attach(
        container, AttachOptions(stdin=options.get("stdin") is not None)
    )
    try:
        ended = await engine.containers.wait(container, "next-exit")
        waiting = asyncio.ensure_future(ended)
        try:
            await engine.containers.start(container)
            stdout, stderr = await _collect(attachment, options.get("stdin"))
            code = (await waiting).status_code or 0
        finally:
            waiting.cancel()
    finally:
        await attachment.aclose()
    return Completed(exit_code=code, stdout_bytes=stdout, stderr_bytes=stderr)


async def _collect(attachment: Attachment, stdin: bytes | None) -> tuple[bytes, bytes]:
    """Feed stdin while reading both outputs to their end."""
    stream = await attachment.open()
    if stream is None:
        return b"", b""
    reader, writer = await asyncio.open_connection(sock=stream)
    outputs = {1: bytearray(), 2: bytearray()}

    async def feed() -> None:
        if stdin is not None:
            with contextlib.suppress(ConnectionError):  # the program did not read it all
                writer.write(stdin)
                await writer.drain()
                writer.write_eof()

    async with asyncio.TaskGroup() as group:
        group.create_task(feed())
        try:
            while True:
                header = await reader.readexactly(8)
                data = await reader.readexactly(int.from_bytes(header[4:], "big"))
                kept = outputs.setdefault(header[0], bytearray())
                if len(kept) + len(data) > OUTPUT_LIMIT:
                    raise SampanError(f"the program wrote more than {OUTPUT_LIMIT} bytes")
                kept += data
        except asyncio.IncompleteReadError:
            pass  # the output has ended
        finally:
            writer.close()
    return bytes(outputs[1]), bytes(outputs[2])
