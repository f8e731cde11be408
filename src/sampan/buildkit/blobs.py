"""containerd's content service, for reading: documents of records of builds, and images' blobs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from grpclib.const import Status
from grpclib.exceptions import GRPCError

from sampan.buildkit.protocol import content_pb2 as content
from sampan.buildkit.records import Records
from sampan.buildkit.rpc import ServerStream, Service
from sampan.content import ContentStore
from sampan.engine.threads import Threads
from sampan.errors import NotFound
from sampan.model.digest import Digest

_PIECE = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Blobs:
    """What may be read: ``records`` before the engine's ``store``."""

    records: Records
    store: ContentStore
    threads: Threads

    def service(self) -> Service:
        """The methods that are offered."""
        descriptor = content.DESCRIPTOR.services_by_name["Content"]
        return Service(descriptor, {"Info": self.info, "Read": self.read})

    async def info(self, stream: ServerStream) -> None:
        """How large a blob is."""
        digest = Digest.parse((await _request(stream)).digest)
        data = await self.records.read(digest)
        if data is None:
            size = await self.threads.run(self.store.size, digest)
        else:
            size = len(data)
        found = content.Info(digest=str(digest), size=size)
        await stream.send_message(content.InfoResponse(info=found))

    async def read(self, stream: ServerStream) -> None:
        """Bytes of a blob from an offset on, all of them with size 0."""
        request = await _request(stream)
        digest, at = Digest.parse(request.digest), request.offset
        data = await self.records.read(digest)
        total = await self.threads.run(self.store.size, digest) if data is None else len(data)
        if at < 0 or request.size < 0 or at > total:
            raise GRPCError(Status.OUT_OF_RANGE, f"{digest}: no byte {at} of {total}")
        end = min(total, at + request.size) if request.size else total
        while at < end:
            size = min(_PIECE, end - at)
            if data is not None:
                piece = data[at : at + size]
            else:
                piece = await self.threads.run_long(_piece, self.store, digest, at, size)
            await stream.send_message(content.ReadContentResponse(offset=at, data=piece))
            at += len(piece)


def _piece(store: ContentStore, digest: Digest, offset: int, size: int) -> bytes:
    with store.open(digest) as blob:
        data = os.pread(blob.fileno(), size, offset)
    if not data:
        raise NotFound(f"content {digest} is gone")
    return data


async def _request(stream: ServerStream) -> Any:
    request = await stream.recv_message()
    if request is None:
        raise GRPCError(Status.INVALID_ARGUMENT, "the request has no message")
    return request
