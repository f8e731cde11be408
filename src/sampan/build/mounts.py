"""RUN --mount made real: host paths for what a step asks for, and their keys.

Cache directories live below the build root and survive builds; secrets are files on a tmpfs for
the length of the step, and neither their names' values nor their bytes reach a key, a layer, a
log or the history.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import posixpath
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from sampan.build.agents import forwarded
from sampan.build.executor import ExtraMount, Secrets
from sampan.build.kept import Kept, note_use, read_note
from sampan.dockerfile.run_mount import RunMount
from sampan.errors import InvalidParameter, NotFound
from sampan.volume.local import disk_usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """The mounts and hidden environment of one step, and what of them belongs to its key."""

    mounts: tuple[ExtraMount, ...] = ()
    environment: tuple[str, ...] = ()


@dataclass(slots=True)
class CacheDirectories:
    """The directories of ``type=cache`` mounts, and who may use each at a time.

    Beside each lies a note of what it is; its time is that of the last use.
    """

    root: Path
    _locks: dict[str, asyncio.Lock] = field(default_factory=dict)
    _private: dict[str, set[int]] = field(default_factory=dict)
    _used: Counter[str] = field(default_factory=Counter)

    def path(self, mount: RunMount, copy: int = 0) -> Path:
        """The directory of a mount's id, made with its mode and owner when missing."""
        path = self.root / _name(mount, copy)
        if not path.exists():
            path.mkdir(parents=True)
            os.chown(path, mount.uid, mount.gid)
            path.chmod(0o755 if mount.mode is None else mount.mode)
        note_use(path.with_suffix(".json"), {"title": mount.id})
        return path

    @contextlib.asynccontextmanager
    async def use(self, mount: RunMount) -> AsyncIterator[Path]:
        """The directory for the length of a step, as ``sharing`` says."""
        if mount.sharing == "locked":
            lock = self._locks.setdefault(mount.id, asyncio.Lock())
            async with lock:
                with self._in_use(mount, 0) as path:
                    yield path
        elif mount.sharing == "private":
            taken = self._private.setdefault(mount.id, set())
            copy = next(number for number in range(len(taken) + 1) if number not in taken)
            taken.add(copy)
            try:
                with self._in_use(mount, copy) as path:
                    yield path
            finally:
                taken.discard(copy)
        else:
            with self._in_use(mount, 0) as path:
                yield path

    @contextlib.contextmanager
    def _in_use(self, mount: RunMount, copy: int) -> Iterator[Path]:
        name = _name(mount, copy)
        self._used[name] += 1
        try:
            yield self.path(mount, copy)
        finally:
            self._used[name] -= 1

    def list(self, *, sizes: bool = True) -> list[Kept]:
        """The directories, least recently used first. Blocking."""
        found: list[Kept] = []
        if not self.root.is_dir():
            return found
        for note in self.root.glob("*.json"):
            with contextlib.suppress(FileNotFoundError):
                about, directory = read_note(note), note.with_suffix("")
                found.append(
                    Kept.noted(
                        note,
                        about,
                        identity=note.stem,
                        description=f"cached mount {about.get('title', '')}",
                        size=disk_usage(directory) if sizes and directory.is_dir() else 0,
                        in_use=self._used[note.stem] > 0,
                    )
                )
        return sorted(found, key=lambda one: (one.used, one.id))

    def remove(self, identity: str) -> bool:
        """Remove a directory unless a step uses it. Blocking."""
        if self._used[identity] > 0:
            return False
        shutil.rmtree(self.root / identity, ignore_errors=True)
        (self.root / f"{identity}.json").unlink(missing_ok=True)
        return True


def _name(mount: RunMount, copy: int) -> str:
    return hashlib.sha256(f"{mount.id}\0{copy}".encode()).hexdigest()


async def prepare(
    mounts: tuple[RunMount, ...],
    *,
    stack: AsyncExitStack,
    directory: str,
    caches: CacheDirectories,
    scratch: Path,
    secrets: Secrets,
    ssh: Mapping[str, str],
    sources: Mapping[RunMount, str],
) -> Prepared:
    """Make the mounts of a step; ``stack`` undoes them.

    ``directory`` is the step's working directory, ``scratch`` a private directory on a tmpfs for
    secrets, ``sources`` the host directory each bind mount (and cache mount with ``from``) reads
    from. Raises :class:`NotFound` for a required secret or agent that was not given.
    """
    made: list[ExtraMount] = []
    environment: list[str] = []
    sockets: list[str] = []
    for number, mount in enumerate(mounts):
        target = posixpath.normpath(posixpath.join("/", directory, mount.target))
        match mount.type:
            case "bind":
                made.append(_bind(mount, target, sources))
            case "cache":
                path = await stack.enter_async_context(caches.use(mount))
                if mount in sources and not any(path.iterdir()):
                    await asyncio.to_thread(_seed, Path(sources[mount]), path)
                made.append(ExtraMount(target=target, source=str(path), read_only=mount.read_only))
            case "tmpfs":
                made.append(ExtraMount(target=target, size=mount.size))
            case "secret":
                value = secrets.values.get(mount.id)
                if value is None and mount.required:
                    raise NotFound(f"secret {mount.id}: not found")
                if value is not None and mount.env:
                    environment.append(f"{mount.env}={value.decode(errors='surrogateescape')}")
                if value is not None and mount.target:
                    path = scratch / f"secret-{number}"
                    _secret(path, value, mount)
                    stack.callback(path.unlink)
                    made.append(ExtraMount(target=target, source=str(path), read_only=True))
            case "ssh":
                agent = ssh.get(mount.id)
                if agent is not None:
                    path = scratch / f"agent-{number}"
                    stack.callback(path.unlink, missing_ok=True)
                    await stack.enter_async_context(forwarded(agent, path, mount))
                    sockets.append(target if mount.target else _socket(len(sockets)))
                    made.append(ExtraMount(target=sockets[-1], source=str(path), read_only=True))
                elif mount.required:
                    raise NotFound(f"no SSH agent {mount.id} was forwarded")
    environment += [f"SSH_AUTH_SOCK={one}" for one in sockets[:1]]
    return Prepared(mounts=tuple(made), environment=tuple(environment))


def _socket(number: int) -> str:
    return f"/run/buildkit/ssh_agent.{number}"


def _bind(mount: RunMount, target: str, sources: Mapping[RunMount, str]) -> ExtraMount:
    source = sources.get(mount)
    if source is None:
        raise InvalidParameter(f"bind mount of {mount.target} has no source")
    return ExtraMount(target=target, source=source, read_only=mount.read_only)


def _seed(source: Path, destination: Path) -> None:
    shutil.copytree(source, destination, symlinks=True, dirs_exist_ok=True)


def _secret(path: Path, value: bytes, mount: RunMount) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400)
    with os.fdopen(fd, "wb") as file:
        file.write(value)
        os.fchmod(file.fileno(), 0o400 if mount.mode is None else mount.mode)
        os.fchown(file.fileno(), mount.uid, mount.gid)
