"""Stores of blobs in directories of the client's: containerd's content service over its session.

Local caches travel so (``--cache-to type=local``): the client offers one store for each directory,
called ``local:PATH``, looks digests up in its ``index.json`` itself, and notes the new one there.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass

from grpclib.const import Status
from grpclib.exceptions import GRPCError

from sampan.buildkit.caller import method, told
from sampan.buildkit.protocol import content_pb2 as content
from sampan.buildkit.rpc import ClientStream
from sampan.buildkit.sessions import Session
from sampan.errors import SampanError
from sampan.model.descriptor import Descriptor

INFO = method(content, "Content", "Info")
READ = method(content, "Content", "Read")
WRITE = method(content, "Content", "Write")
_STORE_HEADER = "buildkit-attachable-store-id"


@dataclass(frozen=True, slots=True)
class SessionStore:
    """One store of the client's, by the name it has for it; ``kind`` is ``local`` (a cache) or
    ``oci`` (a layout). See :class:`sampan.engine.cachestores.ClientStore`."""

    session: Session
    directory: str
    kind: str = "local"

    @property
    def _metadata(self) -> list[tuple[str, str]]:
        return [(_STORE_HEADER, f"{self.kind}:{self.directory}")]

    async def read(self, blob: Descriptor) -> AsyncIterator[bytes]:
        """See :class:`sampan.engine.cachestores.ClientStore`."""
        self.session.require(READ, "store for caches")
        with told(f"blob {blob.digest} of {self.directory}"):
            async with self.session.channel.open(READ, self._metadata) as stream:
                request = content.ReadContentRequest(digest=str(blob.digest))
                await stream.send_message(request, end=True)
                async for answer in stream:
                    yield answer.data

    async def write(self, blob: Descriptor, chunks: AsyncIterator[bytes]) -> None:
        """See :class:`sampan.engine.cachestores.ClientStore`."""
        self.session.require(WRITE, "store for caches")
        with told(f"the cache directory {self.directory}"):
            if await self._has(blob):
                return
            async with self.session.channel.open(WRITE, self._metadata) as stream:
                try:
                    await self._write(stream, blob, chunks)
                except GRPCError as error:
                    if error.status is not Status.ALREADY_EXISTS:  # written twice at a time
                        raise

    async def _has(self, blob: Descriptor) -> bool:
        try:
            async with self.session.channel.open(INFO, self._metadata) as stream:
                await stream.send_message(content.InfoRequest(digest=str(blob.digest)), end=True)
                await stream.recv_message()
        except GRPCError as error:
            if error.status is Status.NOT_FOUND:
                return False
            raise
        return True

    async def _write(
        self, stream: ClientStream, blob: Descriptor, chunks: AsyncIterator[bytes]
    ) -> None:
        ref = f"{blob.digest}-{uuid.uuid4().hex[:12]}"
        offset = 0
        action = content.WRITE
        while action == content.WRITE:
            data = await anext(chunks, b"")
            action = content.WRITE if data else content.COMMIT
            await stream.send_message(
                content.WriteContentRequest(
                    action=action,
                    ref=ref,
                    total=blob.size,
                    expected=str(blob.digest),
                    offset=offset,
                    data=data,
                ),
                end=not data,
            )
            offset += len(data)
            await _answered(stream, offset)


async def _answered(stream: ClientStream, offset: int) -> None:
    """One answer to each message; the client has written all there is so far."""
    answer = await stream.recv_message()
    if answer is None:
        await stream.recv_trailing_metadata()  # raises what went wrong
        raise SampanError("the client's store ended the transfer")
    if answer.offset != offset:
        raise SampanError(f"the client's store has {answer.offset} bytes instead of {offset}")
