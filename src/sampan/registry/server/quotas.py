"""Limits on how many bytes a repository may hold."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from fnmatch import fnmatchcase

from sampan.registry.server.config import Quota
from sampan.registry.server.errors import Code, ProtocolError
from sampan.registry.server.store import Store


class Quotas:
    """The first quota whose pattern matches a repository is its limit.

    A limit is checked when bytes are announced and while they arrive. Uploads that run at the same
    time each see what was there before, so together they can exceed it; the next one is refused.
    """

    def __init__(self, quotas: Sequence[Quota], store: Store) -> None:
        self._quotas = quotas
        self._store = store

    def limit(self, repository: str) -> int | None:
        """How many bytes the repository may hold, None for any number."""
        for quota in self._quotas:
            if fnmatchcase(repository, quota.repository):
                return quota.bytes
        return None

    async def check(self, repository: str, extra: int) -> None:
        """That ``extra`` more bytes fit; raises DENIED."""
        limit = self.limit(repository)
        if limit is not None and await self._store.usage(repository) + extra > limit:
            raise _exceeded(repository, limit)

    async def limited(
        self, repository: str, size: int, data: AsyncIterator[bytes]
    ) -> AsyncIterator[bytes]:
        """``data``, which continues an upload of ``size`` bytes, cut off with DENIED at the limit.

        Announced lengths can be missing (chunked transfer encoding).
        """
        limit = self.limit(repository)
        used = 0 if limit is None else await self._store.usage(repository) + size
        async for piece in data:
            used += len(piece)
            if limit is not None and used > limit:
                raise _exceeded(repository, limit)
            yield piece


def _exceeded(repository: str, limit: int) -> ProtocolError:
    return ProtocolError(
        Code.DENIED,
        f"{repository} may hold {limit} bytes, which this would exceed",
        detail={"limit": limit},
    )
