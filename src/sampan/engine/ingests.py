"""Content coming in and content being collected never meet.

Ingests (pull, load, import, commit, build) run side by side; while any runs, what a deleted image
leaves is only noted. It is erased by the last one that ends, before another may begin.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from sampan.engine.imagetable import Entry
from sampan.image import Image


@dataclass(frozen=True, slots=True, kw_only=True)
class Garbage:
    """A deleted image whose layers and blobs may not be needed any more."""

    entry: Entry
    images: Sequence[Image]


class Ingests:
    """The gate; an asynchronous context manager around whatever brings content in."""

    def __init__(self, erase: Callable[[Sequence[Garbage]], Awaitable[None]]) -> None:
        self._erase = erase
        self._active = 0
        self._garbage: list[Garbage] = []
        self._later: list[Callable[[], Awaitable[None]]] = []
        self._gate = asyncio.Lock()
        #: set while nothing comes in
        self.idle = asyncio.Event()
        self.idle.set()

    async def __aenter__(self) -> None:
        async with self._gate:
            self._active += 1
            self.idle.clear()

    async def __aexit__(self, *_: object) -> None:
        self._active -= 1
        if not self._active:
            self.idle.set()
        if not self._active and (self._garbage or self._later):
            await self._collect()

    async def collect(self, garbage: Garbage) -> None:
        """Erase what an image leaves: now, or when nothing comes in any more."""
        self._garbage.append(garbage)
        if not self._active:
            await self._collect()

    async def alone(self, work: Callable[[], Awaitable[None]]) -> bool:
        """Do ``work`` while nothing comes in; whether that was possible now."""
        async with self._gate:
            if self._active:
                return False
            await work()
            return True

    async def when_idle(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do ``work`` while nothing comes in: now, or when the last ingest ends."""
        self._later.append(work)
        if not self._active:
            await self._collect()

    async def _collect(self) -> None:
        async with self._gate:
            if self._active:
                return
            garbage, self._garbage = self._garbage, []
            if garbage:
                await self._erase(garbage)
            later, self._later = self._later, []
            for work in later:
                await work()
