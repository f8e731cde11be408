"""``engine.run("debian", ["echo", "hi"])``: a program run to its end, its output in hand."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

from sampan.engine.options import Attachment, AttachOptions
from sampan.errors import NotFound, SampanError
from sampan.wire.container import ContainerCreateRequest, HostConfig
from sampan.wire.hostconfig import PortBinding

if TYPE_CHECKING:
    from sampan.engine.engine import Engine

#: bytes of output kept of each stream; what comes beyond is an error
OUTPUT_LIMIT = 64 << 20


class RunFailed(SampanError):
    """The program ended with another exit code than 0, and ``check`` was asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """A run that has ended: its exit code and what it wrote, as text and as bytes."""

    exit_code: int
    stdout_bytes: bytes
    stderr_bytes: bytes

    @property
    def stdout(self) -> str:
        """Standard output, decoded as UTF-8 with what is not replaced."""
        return self.stdout_bytes.decode(errors="replace")

    @property
    def stderr(self) -> str:
        """Standard error, decoded as UTF-8 with what is not replaced."""
        return self.stderr_bytes.decode(errors="replace")


class RunOptions(TypedDict, total=False):
    """How to run; the words are those of ``docker run``.

    ``volumes`` are ``-v`` specifications, ``ports`` maps ``80/tcp`` to a host port, ``memory`` is
    bytes, ``cpus`` a number of processors, ``timeout`` seconds after which it is killed; ``pull``
    (default true) fetches a missing image, ``check`` raises when the exit code is not 0. For
    everything else pass a whole ``host_config``.
    """

    name: str
    env: Mapping[str, str]
    user: str
    workdir: str
    stdin: bytes
    volumes: Sequence[str]
    ports: Mapping[str, int]
    network: str
    memory: int
    cpus: float
    read_only: bool
    privileged: bool
    pull: bool
    check: bool
    timeout: float
    host_config: HostConfig


def create_request(
    image: str, command: str | Sequence[str] | None, options: RunOptions
) -> ContainerCreateRequest:
    """The create request of a run (pure)."""
    words = shlex.split(command) if isinstance(command, str) else command
    host = options.get("host_config") or HostConfig(
        binds=list(options.get("volumes") or ()) or None,
        network_mode=options.get("network"),
        memory=options.get("memory"),
        nano_cpus=round(cpus * 1e9) if (cpus := options.get("cpus")) else None,
        readonly_rootfs=options.get("read_only") or None,
        privileged=options.get("privileged") or None,
        port_bindings={
            port: [PortBinding(host_port=str(number))]
            for port, number in (options.get("ports") or {}).items()
        }
        or None,
    )
    return ContainerCreateRequest(
        image=image,
        cmd=list(words) if words is not None else None,
        env=[f"{key}={value}" for key, value in (options.get("env") or {}).items()] or None,
        user=options.get("user"),
        working_dir=options.get("workdir"),
        attach_stdout=True,
        attach_stderr=True,
        open_stdin=options.get("stdin") is not None,
        stdin_once=options.get("stdin") is not None,
        host_config=host,
    )


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
