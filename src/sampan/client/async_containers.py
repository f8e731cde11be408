"""Containers and execs of a remote engine for asynchronous callers."""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import AsyncIterator, Awaitable, Iterable, Sequence

from sampan.client import containers
from sampan.client.threads import AsyncConnection, Threads
from sampan.wire.container import (
    ContainerCreateRequest,
    ContainerCreateResponse,
    ContainerInspectResponse,
    ContainersPruneReport,
    ContainerSummary,
    ContainerTopResponse,
    ContainerUpdateRequest,
    ContainerUpdateResponse,
    ContainerWaitResponse,
    FilesystemChange,
    IDResponse,
)
from sampan.wire.denial import SystemCallDenial
from sampan.wire.exec import ExecCreateRequest, ExecInspect, ExecStartRequest
from sampan.wire.options import AttachOptions, CommitOptions, Filters, LogsOptions, PathStat
from sampan.wire.stats import ContainerStatsResponse


class Containers:
    """Containers of a remote engine. All methods raise :class:`sampan.errors.SampanError`."""

    def __init__(self, service: containers.Containers, threads: Threads) -> None:
        self._service = service
        self._threads = threads

    async def create(
        self, body: ContainerCreateRequest, name: str | None = None, platform: str | None = None
    ) -> ContainerCreateResponse:
        """Create a container from a local image; it does not pull."""
        return await self._threads.run(self._service.create, body, name, platform)

    async def list(
        self,
        *,
        all: bool = False,
        limit: int | None = None,
        size: bool = False,
        filters: Filters | None = None,
    ) -> builtins.list[ContainerSummary]:
        """Running containers (or ``all``), newest first; unknown filters raise InvalidParameter."""
        return await self._threads.run(
            self._service.list, all=all, limit=limit, size=size, filters=filters
        )

    async def inspect(self, ref: str, *, size: bool = False) -> ContainerInspectResponse:
        """Everything known about a container; ``size`` adds SizeRw and SizeRootFs (bytes)."""
        return await self._threads.run(self._service.inspect, ref, size=size)

    async def init(self, ref: str) -> None:
        """Set up everything of a start but let the program wait until :meth:`start`."""
        await self._threads.run(self._service.init, ref)

    async def start(self, ref: str) -> None:
        """Start; returns once the program's execve succeeded. Does nothing to a running one."""
        await self._threads.run(self._service.start, ref)

    async def stop(self, ref: str, signal: str | None = None, timeout: int | None = None) -> None:  # noqa: ASYNC109
        """Send the stop signal, then SIGKILL after ``timeout`` seconds (-1 waits for ever)."""
        await self._threads.run(self._service.stop, ref, signal, timeout)

    async def restart(
        self,
        ref: str,
        signal: str | None = None,
        timeout: int | None = None,  # noqa: ASYNC109
    ) -> None:
        """Stop (if running) and start again."""
        await self._threads.run(self._service.restart, ref, signal, timeout)

    async def kill(self, ref: str, signal: str = "KILL") -> None:
        """Send a signal by name or number; Conflict when the container is not running."""
        await self._threads.run(self._service.kill, ref, signal)

    async def pause(self, ref: str) -> None:
        """Freeze all processes; Conflict when not running or already paused."""
        await self._threads.run(self._service.pause, ref)

    async def unpause(self, ref: str) -> None:
        """Thaw all processes; Conflict when not paused."""
        await self._threads.run(self._service.unpause, ref)

    async def rename(self, ref: str, name: str) -> None:
        """Give another name; Conflict when taken, InvalidParameter when malformed."""
        await self._threads.run(self._service.rename, ref, name)

    async def update(self, ref: str, body: ContainerUpdateRequest) -> ContainerUpdateResponse:
        """Change resources and restart policy, live when running."""
        return await self._threads.run(self._service.update, ref, body)

    async def wait(
        self, ref: str, condition: str = "not-running"
    ) -> Awaitable[ContainerWaitResponse]:
        """Register a waiter and return an awaitable of its result."""
        items = await self._threads.run(self._service.begin_wait, ref, condition)
        return asyncio.ensure_future(self._threads.run(next, items))

    async def remove(
        self, ref: str, *, force: bool = False, volumes: bool = False, link: bool = False
    ) -> None:
        """Remove a container (``force`` kills it first), with its anonymous ``volumes``."""
        await self._threads.run(self._service.remove, ref, force=force, volumes=volumes, link=link)

    async def prune(self, filters: Filters | None = None) -> ContainersPruneReport:
        """Remove all stopped containers that match."""
        return await self._threads.run(self._service.prune, filters)

    async def denials(self, ref: str) -> Sequence[SystemCallDenial]:
        """System calls of its last run that its seccomp profile acted on."""
        return await self._threads.run(self._service.denials, ref)

    async def top(self, ref: str, ps_args: str = "-ef") -> ContainerTopResponse:
        """The container's processes as the host's ps(1) prints them with ``ps_args``."""
        return await self._threads.run(self._service.top, ref, ps_args)

    async def stats(
        self, ref: str, *, stream: bool = True, one_shot: bool = False
    ) -> AsyncIterator[ContainerStatsResponse]:
        """Resource usage: one object a second, or a single one."""
        items = await self._threads.run(self._service.stats, ref, stream=stream, one_shot=one_shot)
        return self._threads.iterate(items)

    async def changes(self, ref: str) -> builtins.list[FilesystemChange]:
        """What differs from the image (0 modified, 1 added, 2 deleted)."""
        return await self._threads.run(self._service.changes, ref)

    async def export(self, ref: str) -> AsyncIterator[bytes]:
        """The root file system as a tar stream."""
        items = await self._threads.run(self._service.export, ref)
        return self._threads.iterate(items)

    async def logs(self, ref: str, options: LogsOptions) -> AsyncIterator[bytes]:
        """The log, framed as attach frames it; raw when the container has a terminal."""
        items = await self._threads.run(self._service.logs, ref, options)
        return self._threads.iterate(items)

    async def attach(self, ref: str, options: AttachOptions) -> AsyncConnection:
        """Attach to a container, running or not started yet."""
        return AsyncConnection(await self._threads.run(self._service.attach, ref, options))

    async def resize(self, ref: str, height: int, width: int) -> None:
        """Set the terminal's size in character cells."""
        await self._threads.run(self._service.resize, ref, height, width)

    async def archive_stat(self, ref: str, path: str) -> PathStat:
        """What ``path`` in the container is; NotFound when missing."""
        return await self._threads.run(self._service.archive_stat, ref, path)

    async def archive_get(self, ref: str, path: str) -> tuple[PathStat, AsyncIterator[bytes]]:
        """A tar of ``path``, its entries named from the last component on."""
        stat, items = await self._threads.run(self._service.archive_get, ref, path)
        return stat, self._threads.iterate(items)

    async def archive_put(
        self,
        ref: str,
        path: str,
        body: Iterable[bytes],
        *,
        no_overwrite_dir_non_dir: bool = False,
        copy_uid_gid: bool = False,
    ) -> None:
        """Extract a (compressed) tar into the directory ``path`` of the container."""
        await self._threads.run(
            self._service.archive_put,
            ref,
            path,
            body,
            no_overwrite_dir_non_dir=no_overwrite_dir_non_dir,
            copy_uid_gid=copy_uid_gid,
        )

    async def commit(self, ref: str, options: CommitOptions) -> IDResponse:
        """Make an image of the container's file system and configuration."""
        return await self._threads.run(self._service.commit, ref, options)


class Execs:
    """Exec instances of a remote engine; they live as long as their container runs."""

    def __init__(self, service: containers.Execs, threads: Threads) -> None:
        self._service = service
        self._threads = threads

    async def create(self, ref: str, body: ExecCreateRequest) -> str:
        """Prepare a program for container ``ref``; returns the exec's id."""
        return await self._threads.run(self._service.create, ref, body)

    async def start(self, exec_id: str, body: ExecStartRequest) -> AsyncConnection | None:
        """Run it; None when detached."""
        made = await self._threads.run(self._service.start, exec_id, body)
        return AsyncConnection(made) if made is not None else None

    async def inspect(self, exec_id: str) -> ExecInspect:
        """State and configuration of an exec."""
        return await self._threads.run(self._service.inspect, exec_id)

    async def resize(self, exec_id: str, height: int, width: int) -> None:
        """Set its terminal's size in character cells."""
        await self._threads.run(self._service.resize, exec_id, height, width)
