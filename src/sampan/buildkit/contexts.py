"""Build contexts: directories of clients', kept so that the next build sends what has changed.

A client names what is worth keeping by its session's shared key; one build at a time uses a kept
directory, another that wants the same meanwhile gets one of its own that is not kept. Kept
directories may be removed at any time nobody uses them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from sampan.buildkit import transfer
from sampan.buildkit.caller import Filter, files
from sampan.buildkit.sessions import Session
from sampan.buildkit.status import Step
from sampan.engine.threads import Threads

#: A directory nobody has used for this long is removed when the next one is wanted.
KEEP_SECONDS = 48 * 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """One kept directory as people see it; times in seconds since the epoch."""

    id: str
    description: str
    size: int
    created: int
    used: int
    uses: int
    in_use: bool


@dataclass(slots=True, kw_only=True)
class Contexts:
    """The directories below ``root`` that are kept, and below ``transient`` those that are not."""

    root: Path
    transient: Path
    threads: Threads
    _used: set[str] = field(default_factory=set)

    @contextlib.asynccontextmanager
    async def received(
        self,
        session: Session,
        wanted: Filter,
        hint: str,
        step: Step,
        what: str,
    ) -> AsyncIterator[Path]:
        """A directory with what the client has of ``wanted``, while the block lasts.

        ``hint`` tells apart what one client sends under one shared key; ``what`` is how the
        transfer is called in ``step``. Raises SampanError.
        """
        key = json.dumps([session.shared_key, wanted.name, hint])
        async with self._directory(key, keep=bool(session.shared_key)) as path:
            label = f"transferring {what}:"

            def progress(size: int, done: bool) -> None:
                step.report(label, size, done=done)

            async with files(session, wanted) as stream:
                await transfer.receive(stream, path, self.threads.run_long, progress)
            yield path

    @contextlib.asynccontextmanager
    async def temporary(self) -> AsyncIterator[Path]:
        """An empty directory that is gone afterwards."""
        path = self.transient / uuid.uuid4().hex
        path.mkdir(mode=0o700, parents=True)
        try:
            yield path
        finally:
            await self.threads.run_long(shutil.rmtree, path, True)

    @contextlib.asynccontextmanager
    async def _directory(self, key: str, *, keep: bool) -> AsyncIterator[Path]:
        identity = hashlib.sha256(key.encode()).hexdigest()
        if not keep or identity in self._used:
            async with self.temporary() as path:
                yield path / "content"
            return
        self._used.add(identity)
        try:
            await self.threads.run(self._open, identity, key)
            yield self.root / identity / "content"
        finally:
            self._used.discard(identity)

    def _open(self, identity: str, key: str) -> None:
        self._expire()
        directory = self.root / identity
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        note = directory / "note"
        found = _note(directory)
        found = {
            "key": key,
            "created": found.get("created", int(time.time())),
            "uses": int(str(found.get("uses", 0))) + 1,
        }
        temporary = directory / "note.new"
        temporary.write_text(json.dumps(found))
        temporary.replace(note)

    def _expire(self) -> None:
        latest = time.time() - KEEP_SECONDS
        for one in self.list(sizes=False):
            if one.used < latest and not one.in_use:
                shutil.rmtree(self.root / one.id, ignore_errors=True)

    def list(self, *, sizes: bool = True) -> list[Kept]:
        """The kept directories, least recently used first. Blocking."""
        found: list[Kept] = []
        if not self.root.is_dir():
            return found
        for directory in self.root.iterdir():
            with contextlib.suppress(FileNotFoundError):
                note = _note(directory)
                key = json.loads(str(note.get("key") or "[]"))
                found.append(
                    Kept(
                        id=directory.name,
                        description="local source for " + (key[1] if len(key) > 1 else "context"),
                        size=_size(directory) if sizes else 0,
                        created=int(str(note.get("created", 0))),
                        used=int((directory / "note").stat().st_mtime),
                        uses=int(str(note.get("uses", 0))),
                        in_use=directory.name in self._used,
                    )
                )
        return sorted(found, key=lambda one: (one.used, one.id))

    def remove(self, identity: str) -> bool:
        """Remove a kept directory unless a build uses it. Blocking."""
        if identity in self._used:
            return False
        shutil.rmtree(self.root / identity, ignore_errors=True)
        return True


def _note(directory: Path) -> dict[str, object]:
    try:
        found = json.loads((directory / "note").read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _size(directory: Path) -> int:
    total = 0
    for parent, directories, names in os.walk(directory):
        for name in (*directories, *names):
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(os.path.join(parent, name)).st_blocks * 512
    return total
