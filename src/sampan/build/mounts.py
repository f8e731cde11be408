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
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from sampan.build.executor import ExtraMount, Secrets
from sampan.dockerfile.run_mount import RunMount
from sampan.errors import InvalidParameter, NotFound


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """The mounts and hidden environment of one step, and what of them belongs to its key."""

    mounts: tuple[ExtraMount, ...] = ()
    environment: tuple[str, ...] = ()


@dataclass(slots=True)
class CacheDirectories:
    """The directories of ``type=cache`` mounts, and who may use each at a time."""

    root: Path
    _locks: dict[str, asyncio.Lock] = field(default_factory=dict)
    _private: dict[str, set[int]] = field(default_factory=dict)

    def path(self, mount: RunMount, copy: int = 0) -> Path:
        """The directory of a mount's id, made with its mode and owner when missing."""
        name = hashlib.sha256(f"{mount.id}\0{copy}".encode()).hexdigest()
        path = self.root / name
        if not path.exists():
            path.mkdir(parents=True)
            os.chown(path, mount.uid, mount.gid)
            path.chmod(0o755 if mount.mode is None else mount.mode)
        return path

    @contextlib.asynccontextmanager
    async def use(self, mount: RunMount) -> AsyncIterator[Path]:
        """The directory for the length of a step, as ``sharing`` says."""
        if mount.sharing == "locked":
            lock = self._locks.setdefault(mount.id, asyncio.Lock())
            async with lock:
                yield self.path(mount)
        elif mount.sharing == "private":
            taken = self._private.setdefault(mount.id, set())
            copy = next(number for number in range(len(taken) + 1) if number not in taken)
            taken.add(copy)
            try:
                yield self.path(mount, copy)
            finally:
                taken.discard(copy)
        else:
            yield self.path(mount)

    def remove_all(self) -> int:
        """Remove every cache directory; the bytes freed."""
        freed = sum(
            file.lstat().st_blocks * 512 for file in self.root.rglob("*") if not file.is_symlink()
        )
        shutil.rmtree(self.root, ignore_errors=True)
        return freed


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
                if value is None:
                    if mount.required:
                        raise NotFound(f"secret {mount.id}: not found")
                    continue
                if mount.env:
                    environment.append(f"{mount.env}={value.decode(errors='surrogateescape')}")
                if mount.target:
                    path = scratch / f"secret-{number}"
                    _secret(path, value, mount)
                    stack.callback(path.unlink)
                    made.append(ExtraMount(target=target, source=str(path), read_only=True))
            case "ssh":
                agent = ssh.get(mount.id)
                if agent is None:
                    if mount.required:
                        raise NotFound(f"no SSH agent {mount.id} was forwarded")
                    continue
                place = mount.target or f"/run/buildkit/ssh_agent.{number}"
                made.append(ExtraMount(target=place, source=agent, read_only=True))
                environment.append(f"SSH_AUTH_SOCK={place}")
    return Prepared(mounts=tuple(made), environment=tuple(environment))


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
