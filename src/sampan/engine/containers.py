"""The containers service: every operation on containers, each told in a module of its own.

``ref`` is a full id, a unique prefix of one, or a name with or without its leading slash.
"""

from __future__ import annotations

import builtins
from collections.abc import AsyncIterator, Awaitable

from sampan.engine.options import (
    Attachment,
    AttachOptions,
    CommitOptions,
    Filters,
    LogsOptions,
    PathStat,
    Stream,
)
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
from sampan.wire.stats import ContainerStatsResponse


class Containers:
    """Containers of one engine. All methods raise :class:`sampan.errors.SampanError` subclasses."""

    async def create(
        self, body: ContainerCreateRequest, name: str | None = None, platform: str | None = None
    ) -> ContainerCreateResponse:
        """Create a container from a local image; it does not pull.

        Raises InvalidParameter (bad config), NotFound (``No such image: x``), Conflict (name).
        Nothing is left behind when it raises.
        """
        raise NotImplementedError

    async def list(
        self,
        *,
        all: bool = False,
        limit: int | None = None,
        size: bool = False,
        filters: Filters | None = None,
    ) -> builtins.list[ContainerSummary]:
        """Running containers (or ``all``), newest first; unknown filters raise InvalidParameter."""
        raise NotImplementedError

    async def inspect(self, ref: str, *, size: bool = False) -> ContainerInspectResponse:
        """Everything known about a container; ``size`` adds SizeRw and SizeRootFs (bytes)."""
        raise NotImplementedError

    async def start(self, ref: str) -> None:
        """Start; returns once the program's execve succeeded.

        Raises NotModified when it runs already, CommandNotFound, CommandNotExecutable, StartFailed.
        """
        raise NotImplementedError

    async def stop(self, ref: str, signal: str | None = None, timeout: int | None = None) -> None:  # noqa: ASYNC109
        """Send the stop signal, then SIGKILL after ``timeout`` seconds (-1 waits for ever).

        Raises NotModified when it does not run.
        """
        raise NotImplementedError

    async def restart(
        self,
        ref: str,
        signal: str | None = None,
        timeout: int | None = None,  # noqa: ASYNC109
    ) -> None:
        """Stop (if running) and start again."""
        raise NotImplementedError

    async def kill(self, ref: str, signal: str = "KILL") -> None:
        """Send a signal by name or number; Conflict when the container is not running."""
        raise NotImplementedError

    async def pause(self, ref: str) -> None:
        """Freeze all processes; Conflict when not running or already paused."""
        raise NotImplementedError

    async def unpause(self, ref: str) -> None:
        """Thaw all processes; Conflict when not paused."""
        raise NotImplementedError

    async def rename(self, ref: str, name: str) -> None:
        """Give another name; Conflict when taken, InvalidParameter when malformed."""
        raise NotImplementedError

    async def update(self, ref: str, body: ContainerUpdateRequest) -> ContainerUpdateResponse:
        """Change resources and restart policy, live when running."""
        raise NotImplementedError

    async def wait(
        self, ref: str, condition: str = "not-running"
    ) -> Awaitable[ContainerWaitResponse]:
        """Register a waiter and return an awaitable of its result.

        ``condition``: not-running, next-exit or removed. The registration is in force when this
        returns, so send the headers then, and await the result after.
        """
        raise NotImplementedError

    async def remove(
        self, ref: str, *, force: bool = False, volumes: bool = False, link: bool = False
    ) -> None:
        """Remove a container (``force`` kills it first), with its anonymous ``volumes``.

        ``link`` removes only the link named by ``ref``. Conflict when running without ``force``.
        """
        raise NotImplementedError

    async def prune(self, filters: Filters | None = None) -> ContainersPruneReport:
        """Remove all stopped containers that match."""
        raise NotImplementedError

    async def top(self, ref: str, ps_args: str = "-ef") -> ContainerTopResponse:
        """The container's processes as the host's ps(1) prints them with ``ps_args``."""
        raise NotImplementedError

    async def stats(
        self, ref: str, *, stream: bool = True, one_shot: bool = False
    ) -> AsyncIterator[ContainerStatsResponse]:
        """Resource usage: one object a second, or a single one."""
        raise NotImplementedError

    async def changes(self, ref: str) -> builtins.list[FilesystemChange]:
        """What differs from the image (0 modified, 1 added, 2 deleted)."""
        raise NotImplementedError

    async def export(self, ref: str) -> AsyncIterator[bytes]:
        """The root file system as a tar stream."""
        raise NotImplementedError

    async def logs(self, ref: str, options: LogsOptions) -> Stream:
        """The log, framed as attach frames it; ``.tty`` tells a raw stream."""
        raise NotImplementedError

    async def attach(self, ref: str, options: AttachOptions) -> Attachment:
        """Attach to a container, running or not started yet; see :class:`Attachment`."""
        raise NotImplementedError

    async def resize(self, ref: str, height: int, width: int) -> None:
        """Set the terminal's size in character cells."""
        raise NotImplementedError

    async def archive_stat(self, ref: str, path: str) -> PathStat:
        """What ``path`` in the container is; NotFound when missing."""
        raise NotImplementedError

    async def archive_get(self, ref: str, path: str) -> tuple[PathStat, AsyncIterator[bytes]]:
        """A tar of ``path``, its entries named from the last component on."""
        raise NotImplementedError

    async def archive_put(
        self,
        ref: str,
        path: str,
        body: AsyncIterator[bytes],
        *,
        no_overwrite_dir_non_dir: bool = False,
        copy_uid_gid: bool = False,
    ) -> None:
        """Extract a (compressed) tar into the directory ``path`` of the container."""
        raise NotImplementedError

    async def commit(self, ref: str, options: CommitOptions) -> IDResponse:
        """Make an image of the container's file system and configuration."""
        raise NotImplementedError
