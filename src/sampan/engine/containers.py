"""The containers service: every operation on containers, each told in a module of its own.

``ref`` is a full id, a unique prefix of one, or a name with or without its leading slash.
"""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import AsyncIterator, Awaitable, Coroutine, Mapping, Sequence
from typing import TypeVar

from sampan.engine import (
    archiving,
    clock,
    committing,
    creation,
    denials,
    ending,
    inspecting,
    links,
    listing,
    logs,
    preparing,
    processes,
    removal,
    sizes,
    starting,
    statistics,
    stopping,
    supervision,
    updating,
    waiting,
)
from sampan.engine.attaching import (
    ClientAttachment,
    PendingAttachment,
    parse_detach_keys,
)
from sampan.engine.backoff import cancel_restart
from sampan.engine.core import Core
from sampan.engine.filters import check_filters, match_labels, until
from sampan.engine.lifecycle import Status
from sampan.engine.options import (
    Attachment,
    AttachOptions,
    CommitOptions,
    Filters,
    LogsOptions,
    PathStat,
    Stream,
)
from sampan.engine.table import Container
from sampan.engine.validate import parse_signal
from sampan.errors import Conflict, NotFound, SampanError
from sampan.kernel import cgroup
from sampan.model.mount import Mount
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
from sampan.wire.stats import ContainerStatsResponse

T = TypeVar("T")


class Containers:
    """Containers of one engine. All methods raise :class:`sampan.errors.SampanError` subclasses."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def _whole(self, work: Coroutine[object, object, T]) -> T:
        """Do ``work`` to its end even when the client that asked for it goes away."""
        return await asyncio.shield(
            self._core.tasks.spawn(work, "operation", quiet=True, whole=True)
        )

    def _find(self, ref: str) -> Container:
        return self._core.containers.find(ref)

    async def create(
        self,
        body: ContainerCreateRequest,
        name: str | None = None,
        platform: str | None = None,
        *,
        client: tuple[int, int] | None = None,
        read_only_recursive: bool = True,
        volume_labels: Mapping[str, str] | None = None,
    ) -> ContainerCreateResponse:
        """Create a container from a local image; it does not pull.

        ``client``: user and group of whoever asked, for ``--userns keep-id``; this process's
        without. ``read_only_recursive``: what is mounted below read-only binds is so as well.
        ``volume_labels``: further labels of the volumes that are made for it.

        Raises InvalidParameter (bad config), NotFound (``No such image: x``), Conflict (name).
        Nothing is left behind when it raises.
        """
        made = creation.create(
            self._core,
            body,
            name,
            platform,
            client=client,
            read_only_recursive=read_only_recursive,
            volume_labels=volume_labels,
        )
        return await self._whole(made)

    async def list(
        self,
        *,
        all: bool = False,
        limit: int | None = None,
        size: bool = False,
        filters: Filters | None = None,
    ) -> builtins.list[ContainerSummary]:
        """Running containers (or ``all``), newest first; unknown filters raise InvalidParameter."""
        core = self._core
        chosen = listing.select(
            core.containers, core.images, core.fabric, all=all, limit=limit, filters=filters
        )
        now = clock.now()
        linked = links.further_names(core.containers)
        found = []
        for container in chosen:
            written, root = await sizes.container_sizes(core, container) if size else (None, None)
            found.append(
                inspecting.summary(
                    container,
                    core.fabric,
                    now,
                    self._shown_image(container),
                    further_names=linked.get(container.id, ()),
                    size_rw=written,
                    size_root=root,
                )
            )
        return found

    def _shown_image(self, container: Container) -> str:
        """The image as the user named it, or its id when that name means another one now."""
        record = container.record
        try:
            entry, _ = self._core.images.find(record.image)
        except SampanError:
            return record.image_id
        same = record.image_target in ("", str(entry.target.digest))
        return record.image if same and record.image_id else record.image_id

    async def inspect(self, ref: str, *, size: bool = False) -> ContainerInspectResponse:
        """Everything known about a container; ``size`` adds SizeRw and SizeRootFs (bytes)."""
        container = self._find(ref)
        written = root = None
        if size:
            written, root = await sizes.container_sizes(self._core, container)
        return inspecting.inspect(
            container,
            self._core.config,
            self._core.fabric,
            root=self._root(container),
            links=links.shown(self._core.containers, container),
            size_rw=written,
            size_root=root,
        )

    def _root(self, container: Container) -> tuple[Mount, ...]:
        try:
            return self._core.snapshots.mounts(container.id)
        except NotFound:
            return ()  # its snapshot was lost; everything else can still be told

    async def init(self, ref: str) -> None:
        """Set up everything of a start but let the program wait until :meth:`start`.

        The container is ``initialized`` then (``created`` to Docker's clients); :meth:`stop` and
        :meth:`remove` undo it. Raises Conflict when it runs or is initialized, else as
        :meth:`start`.
        """
        await self._whole(self._init(self._find(ref)))

    async def _init(self, container: Container) -> None:
        async with container.lock:
            await preparing.prepare(self._core, container)

    async def start(self, ref: str) -> None:
        """Start; returns once the program's execve succeeded.

        Raises NotModified when it runs already, CommandNotFound, CommandNotExecutable, StartFailed.
        """
        container = self._find(ref)
        work = self._core.traced("start container", self._start(container), container=container.id)
        await self._whole(work)

    async def _start(self, container: Container) -> None:
        core = self._core
        async with container.lock:
            starting.check_startable(container)
            cancel_restart(core, container)
            try:
                if container.prepared is not None:
                    run = await preparing.let_go(core, container)
                else:
                    run = await starting.start(core, container)
            except SampanError:
                if container.record.host_config.auto_remove:
                    await removal.remove_locked(core, container, volumes=True)
                raise
            supervision.watch(core, container, run)

    async def stop(
        self,
        ref: str,
        signal: str | None = None,
        timeout: int | None = None,  # noqa: ASYNC109
    ) -> None:
        """Send the stop signal, then SIGKILL after ``timeout`` seconds (-1 waits for ever).

        Raises NotModified when it does not run.
        """
        await self._whole(stopping.stop(self._core, self._find(ref), signal, timeout))

    async def restart(
        self,
        ref: str,
        signal: str | None = None,
        timeout: int | None = None,  # noqa: ASYNC109
    ) -> None:
        """Stop (if running) and start again."""
        await self._whole(self._restart(self._find(ref), signal, timeout))

    async def _restart(self, container: Container, signal: str | None, seconds: int | None) -> None:
        core = self._core
        run = container.run
        if run is not None:
            container.restarting = True
            try:
                number = parse_signal(signal) if signal else stopping.stop_signal(container)
                await stopping.end(
                    core, container, run, number, stopping.timeout_of(container, seconds)
                )
            finally:
                container.restarting = False
            core.publish(container, "stop")
        await self._start(container)
        core.publish(container, "restart")

    async def kill(self, ref: str, signal: str = "KILL") -> None:
        """Send a signal by name or number; Conflict when the container is not running."""
        try:
            container = self._find(ref)
        except NotFound as error:
            raise NotFound(f"cannot kill container: {ref}: {error.message}") from None
        await stopping.kill(self._core, container, ref, signal)

    async def pause(self, ref: str) -> None:
        """Freeze all processes; Conflict when not running or already paused."""
        await stopping.pause(self._core, self._find(ref))

    async def unpause(self, ref: str) -> None:
        """Thaw all processes; Conflict when not paused."""
        await stopping.unpause(self._core, self._find(ref))

    async def rename(self, ref: str, name: str) -> None:
        """Give another name; Conflict when taken, InvalidParameter when malformed."""
        await updating.rename(self._core, self._find(ref), name)

    async def update(self, ref: str, body: ContainerUpdateRequest) -> ContainerUpdateResponse:
        """Change resources and restart policy, live when running."""
        return await updating.update(self._core, self._find(ref), body)

    async def wait(
        self, ref: str, condition: str = "not-running"
    ) -> Awaitable[ContainerWaitResponse]:
        """Register a waiter and return an awaitable of its result.

        ``condition``: not-running, next-exit or removed. The registration is in force when this
        returns, so send the headers then, and await the result after.
        """
        return waiting.register(self._find(ref), condition)

    async def remove(
        self, ref: str, *, force: bool = False, volumes: bool = False, link: bool = False
    ) -> None:
        """Remove a container (``force`` kills it first), with its anonymous ``volumes``.

        ``link`` removes only the link named by ``ref``. Conflict when running without ``force``.
        """
        await self._whole(removal.remove(self._core, ref, force=force, volumes=volumes, link=link))

    async def prune(self, filters: Filters | None = None) -> ContainersPruneReport:
        """Remove all stopped containers that match."""
        core = self._core
        checked = check_filters(filters, ("until", "label", "label!"))
        limit = until(checked, clock.now() / 1e9)
        deleted, freed = [], 0
        for container in core.containers:
            status = container.state.status
            if (
                status not in (Status.CREATED, Status.INITIALIZED, Status.EXITED, Status.DEAD)
                or (limit is not None and container.record.created / 1e9 > limit)
                or not match_labels(container.record.config.labels or {}, checked)
            ):
                continue
            written, _ = await sizes.container_sizes(core, container)
            try:
                await removal.remove(core, container.id, force=False, volumes=False, link=False)
            except (Conflict, NotFound):
                continue  # somebody else started or removed it meanwhile
            deleted.append(container.id)
            freed += written
        core.events.publish("container", "prune", "", {"reclaimed": str(freed)})
        return ContainersPruneReport(containers_deleted=deleted or None, space_reclaimed=freed)

    async def top(self, ref: str, ps_args: str = "-ef") -> ContainerTopResponse:
        """The container's processes as the host's ps(1) prints them with ``ps_args``."""
        container = self._find(ref)
        arguments = processes.check_arguments(ps_args)
        if container.state.status == Status.RESTARTING:
            raise Conflict(f"container {container.id} is restarting, wait until it is running")
        run = container.run
        if run is None:
            raise Conflict(f"container {container.id} is not running")

        def look() -> ContainerTopResponse:
            pids = set(cgroup.procs(self._core.facts.layout, run.cgroup))
            return processes.parse(processes.run_ps(arguments, pids), pids)

        found = await self._core.threads.run(look)
        self._core.publish(container, "top")
        return found

    async def denials(self, ref: str) -> Sequence[SystemCallDenial]:
        """System calls of its last run that its seccomp profile acted on, from the kernel's log.

        Those it refused with an error number leave no trace. Raises Unsupported where the log
        cannot be read.
        """
        return await denials.of(self._core, self._find(ref))

    async def stats(
        self, ref: str, *, stream: bool = True, one_shot: bool = False
    ) -> AsyncIterator[ContainerStatsResponse]:
        """Resource usage: one object a second, or a single one."""
        return statistics.stream(self._core, self._find(ref), follow=stream, one_shot=one_shot)

    async def changes(self, ref: str) -> builtins.list[FilesystemChange]:
        """What differs from the image (0 modified, 1 added, 2 deleted)."""
        return await archiving.changes(self._core, self._find(ref))

    async def export(self, ref: str) -> AsyncIterator[bytes]:
        """The root file system as a tar stream."""
        return await archiving.export(self._core, self._find(ref))

    async def logs(self, ref: str, options: LogsOptions) -> Stream:
        """The log, framed as attach frames it; ``.tty`` tells a raw stream."""
        return logs.open_logs(self._core, self._find(ref), options)

    async def attach(self, ref: str, options: AttachOptions) -> Attachment:
        """Attach to a container, running or not started yet; see :class:`Attachment`."""
        core, container = self._core, self._find(ref)
        parse_detach_keys(options.detach_keys)
        if container.state.status == Status.PAUSED:
            raise Conflict(
                f"container {container.id} is paused, unpause the container before attach."
            )
        if container.state.status == Status.RESTARTING:
            raise Conflict(
                f"container {container.id} is restarting, wait until the container is running"
            )
        stdin = options.stdin and bool(container.record.config.open_stdin)
        backlog = None
        if options.logs:
            wanted = LogsOptions(stdout=options.stdout, stderr=options.stderr)
            backlog = logs.open_logs(core, container, wanted)
        pending = PendingAttachment(options) if options.stream else None
        container.pending = [client for client in container.pending if not client.socket.done()]
        if pending is not None:
            container.pending.append(pending)
            if container.run is not None:
                await starting.plug_pending(core, container)
        core.publish(container, "attach")
        return ClientAttachment(
            tty=bool(container.record.config.tty),
            options=options,
            stdin=stdin,
            backlog=backlog,
            pending=pending,
            on_detach=lambda: core.publish(container, "detach"),
            after_output=lambda: ending.settled(core, container, ending.OUTPUT_ENDED),
        )

    async def resize(self, ref: str, height: int, width: int) -> None:
        """Set the terminal's size in character cells."""
        container = self._find(ref)
        run = stopping.require_run(container, "cannot resize")
        await self._core.threads.run(run.monitor.resize, height, width)
        self._core.publish(container, "resize", height=str(height), width=str(width))

    async def archive_stat(self, ref: str, path: str) -> PathStat:
        """What ``path`` in the container is; NotFound when missing."""
        return await archiving.stat(self._core, self._find(ref), path, ref=ref)

    async def archive_get(self, ref: str, path: str) -> tuple[PathStat, AsyncIterator[bytes]]:
        """A tar of ``path``, its entries named from the last component on."""
        return await archiving.get(self._core, self._find(ref), path, ref=ref)

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
        await archiving.put(
            self._core,
            self._find(ref),
            path,
            body,
            no_overwrite_dir_non_dir=no_overwrite_dir_non_dir,
            copy_uid_gid=copy_uid_gid,
            ref=ref,
        )

    async def commit(self, ref: str, options: CommitOptions) -> IDResponse:
        """Make an image of the container's file system and configuration."""
        return await self._whole(committing.commit(self._core, self._find(ref), options))
