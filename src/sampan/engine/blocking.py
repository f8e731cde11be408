"""The services without ``await``: each method of :mod:`sampan.engine` under its own name.

The arguments are the same; a test keeps it so.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Iterator, Mapping, Sequence

from sampan.engine import asynchronous as aio
from sampan.engine.blockingnetworks import Networks as Networks
from sampan.engine.blockingvolumes import Volumes as Volumes
from sampan.engine.builds import BuildOptions
from sampan.engine.imageflows import Progress
from sampan.engine.loop import Connection, Loop, iterate
from sampan.engine.options import (
    AttachOptions,
    CommitOptions,
    Filters,
    ImportOptions,
    LogsOptions,
    PathStat,
    RegistryAuth,
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
from sampan.wire.denial import SystemCallDenial
from sampan.wire.exec import ExecCreateRequest, ExecInspect, ExecStartRequest
from sampan.wire.image import (
    AuthConfig,
    AuthResponse,
    BuildCache,
    BuildPruneReport,
    DistributionInspect,
    ImageDeleteResponseItem,
    ImageHistoryResponseItem,
    ImageInspect,
    ImageLayer,
    ImageMount,
    ImageSearchItem,
    ImagesPruneReport,
    ImageSummary,
)
from sampan.wire.stats import ContainerStatsResponse
from sampan.wire.system import EventMessage, SystemDataUsage, SystemInfo, SystemVersion


class Containers:
    """Containers of one engine. All methods raise :class:`sampan.errors.SampanError` subclasses."""

    def __init__(self, service: aio.Containers, loop: Loop) -> None:
        self._service = service
        self._loop = loop

    def create(
        self,
        body: ContainerCreateRequest,
        name: str | None = None,
        platform: str | None = None,
        *,
        client: tuple[int, int] | None = None,
        read_only_recursive: bool = True,
        volume_labels: Mapping[str, str] | None = None,
    ) -> ContainerCreateResponse:
        """Create a container from a local image; it does not pull."""
        made = self._service.create(
            body,
            name,
            platform,
            client=client,
            read_only_recursive=read_only_recursive,
            volume_labels=volume_labels,
        )
        return self._loop.call(made)

    def list(
        self,
        *,
        all: bool = False,
        limit: int | None = None,
        size: bool = False,
        filters: Filters | None = None,
    ) -> builtins.list[ContainerSummary]:
        """Running containers (or ``all``), newest first; unknown filters raise InvalidParameter."""
        return self._loop.call(self._service.list(all=all, limit=limit, size=size, filters=filters))

    def inspect(self, ref: str, *, size: bool = False) -> ContainerInspectResponse:
        """Everything known about a container; ``size`` adds SizeRw and SizeRootFs (bytes)."""
        return self._loop.call(self._service.inspect(ref, size=size))

    def init(self, ref: str) -> None:
        """Set up everything of a start but let the program wait until :meth:`start`."""
        self._loop.call(self._service.init(ref))

    def start(self, ref: str) -> None:
        """Start; returns once the program's execve succeeded."""
        self._loop.call(self._service.start(ref))

    def stop(self, ref: str, signal: str | None = None, timeout: int | None = None) -> None:
        """Send the stop signal, then SIGKILL after ``timeout`` seconds (-1 waits for ever)."""
        self._loop.call(self._service.stop(ref, signal, timeout))

    def restart(self, ref: str, signal: str | None = None, timeout: int | None = None) -> None:
        """Stop (if running) and start again."""
        self._loop.call(self._service.restart(ref, signal, timeout))

    def kill(self, ref: str, signal: str = "KILL") -> None:
        """Send a signal by name or number; Conflict when the container is not running."""
        self._loop.call(self._service.kill(ref, signal))

    def pause(self, ref: str) -> None:
        """Freeze all processes; Conflict when not running or already paused."""
        self._loop.call(self._service.pause(ref))

    def unpause(self, ref: str) -> None:
        """Thaw all processes; Conflict when not paused."""
        self._loop.call(self._service.unpause(ref))

    def rename(self, ref: str, name: str) -> None:
        """Give another name; Conflict when taken, InvalidParameter when malformed."""
        self._loop.call(self._service.rename(ref, name))

    def update(self, ref: str, body: ContainerUpdateRequest) -> ContainerUpdateResponse:
        """Change resources and restart policy, live when running."""
        return self._loop.call(self._service.update(ref, body))

    def wait(self, ref: str, condition: str = "not-running") -> ContainerWaitResponse:
        """Register a waiter and return an awaitable of its result."""
        return self._loop.call_twice(self._service.wait(ref, condition))

    def remove(
        self, ref: str, *, force: bool = False, volumes: bool = False, link: bool = False
    ) -> None:
        """Remove a container (``force`` kills it first), with its anonymous ``volumes``."""
        self._loop.call(self._service.remove(ref, force=force, volumes=volumes, link=link))

    def prune(self, filters: Filters | None = None) -> ContainersPruneReport:
        """Remove all stopped containers that match."""
        return self._loop.call(self._service.prune(filters))

    def top(self, ref: str, ps_args: str = "-ef") -> ContainerTopResponse:
        """The container's processes as the host's ps(1) prints them with ``ps_args``."""
        return self._loop.call(self._service.top(ref, ps_args))

    def denials(self, ref: str) -> Sequence[SystemCallDenial]:
        """System calls of its last run that its seccomp profile acted on."""
        return self._loop.call(self._service.denials(ref))

    def stats(
        self, ref: str, *, stream: bool = True, one_shot: bool = False
    ) -> Iterator[ContainerStatsResponse]:
        """Resource usage: one object a second, or a single one."""
        return self._loop.iterate(
            self._loop.call(self._service.stats(ref, stream=stream, one_shot=one_shot))
        )

    def changes(self, ref: str) -> builtins.list[FilesystemChange]:
        """What differs from the image (0 modified, 1 added, 2 deleted)."""
        return self._loop.call(self._service.changes(ref))

    def export(self, ref: str) -> Iterator[bytes]:
        """The root file system as a tar stream."""
        return self._loop.iterate(self._loop.call(self._service.export(ref)))

    def logs(self, ref: str, options: LogsOptions) -> Iterator[bytes]:
        """The log, framed as attach frames it; ``.tty`` tells a raw stream."""
        return self._loop.iterate(aiter(self._loop.call(self._service.logs(ref, options))))

    def attach(self, ref: str, options: AttachOptions) -> Connection:
        """Attach to a container, running or not started yet; see :class:`Attachment`."""
        return Connection(self._loop.call(self._service.attach(ref, options)), self._loop)

    def resize(self, ref: str, height: int, width: int) -> None:
        """Set the terminal's size in character cells."""
        self._loop.call(self._service.resize(ref, height, width))

    def archive_stat(self, ref: str, path: str) -> PathStat:
        """What ``path`` in the container is; NotFound when missing."""
        return self._loop.call(self._service.archive_stat(ref, path))

    def archive_get(self, ref: str, path: str) -> tuple[PathStat, Iterator[bytes]]:
        """A tar of ``path``, its entries named from the last component on."""
        stat, chunks = self._loop.call(self._service.archive_get(ref, path))
        return stat, self._loop.iterate(chunks)

    def archive_put(
        self,
        ref: str,
        path: str,
        body: Iterable[bytes],
        *,
        no_overwrite_dir_non_dir: bool = False,
        copy_uid_gid: bool = False,
    ) -> None:
        """Extract a (compressed) tar into the directory ``path`` of the container."""
        self._loop.call(
            self._service.archive_put(
                ref,
                path,
                iterate(body),
                no_overwrite_dir_non_dir=no_overwrite_dir_non_dir,
                copy_uid_gid=copy_uid_gid,
            )
        )

    def commit(self, ref: str, options: CommitOptions) -> IDResponse:
        """Make an image of the container's file system and configuration."""
        return self._loop.call(self._service.commit(ref, options))


class Execs:
    """Exec instances of one engine; they live as long as their container runs."""

    def __init__(self, service: aio.Execs, loop: Loop) -> None:
        self._service = service
        self._loop = loop

    def create(self, ref: str, body: ExecCreateRequest) -> str:
        """Prepare a program for container ``ref``; returns the exec's id."""
        return self._loop.call(self._service.create(ref, body))

    def start(self, exec_id: str, body: ExecStartRequest) -> Connection | None:
        """Run it; None when detached."""
        made = self._loop.call(self._service.start(exec_id, body))
        return Connection(made, self._loop) if made is not None else None

    def inspect(self, exec_id: str) -> ExecInspect:
        """State and configuration of an exec."""
        return self._loop.call(self._service.inspect(exec_id))

    def resize(self, exec_id: str, height: int, width: int) -> None:
        """Set its terminal's size in character cells."""
        self._loop.call(self._service.resize(exec_id, height, width))


class Images:
    """Images of one engine. ``ref`` is a reference, an id or a unique id prefix."""

    def __init__(self, service: aio.Images, loop: Loop) -> None:
        self._service = service
        self._loop = loop

    def list(
        self,
        *,
        all: bool = False,
        filters: Filters | None = None,
        shared_size: bool = False,
        digests: bool = False,
        manifests: bool = False,
    ) -> builtins.list[ImageSummary]:
        """Images, newest first."""
        return self._loop.call(
            self._service.list(
                all=all,
                filters=filters,
                shared_size=shared_size,
                digests=digests,
                manifests=manifests,
            )
        )

    def inspect(
        self, ref: str, *, manifests: bool = False, platform: str | None = None
    ) -> ImageInspect:
        """Everything known about an image; NotFound ``No such image: ref``."""
        return self._loop.call(self._service.inspect(ref, manifests=manifests, platform=platform))

    def history(
        self, ref: str, platform: str | None = None
    ) -> builtins.list[ImageHistoryResponseItem]:
        """The image's layers and the instructions that made them, newest first."""
        return self._loop.call(self._service.history(ref, platform))

    def layers(self, ref: str, platform: str | None = None) -> builtins.list[ImageLayer]:
        """The layers of an image, lowest first."""
        return self._loop.call(self._service.layers(ref, platform))

    def changes(self, ref: str, since: str = "") -> builtins.list[FilesystemChange]:
        """What an image changed: its last layer, or everything ``since`` another image."""
        return self._loop.call(self._service.changes(ref, since))

    def mount(self, ref: str) -> ImageMount:
        """The mount that shows an image read-only; its layers stay until :meth:`unmount`."""
        return self._loop.call(self._service.mount(ref))

    def unmount(self, ref: str) -> None:
        """No longer keep a mounted image; NotFound when it is not mounted."""
        self._loop.call(self._service.unmount(ref))

    def missing(self, digests: Sequence[str]) -> builtins.list[str]:
        """Those of ``digests`` (of blobs) that are not stored here."""
        return self._loop.call(self._service.missing(digests))

    def tag(self, ref: str, repo: str, tag: str = "") -> None:
        """Give an image another name."""
        self._loop.call(self._service.tag(ref, repo, tag))

    def remove(
        self,
        ref: str,
        *,
        force: bool = False,
        noprune: bool = False,
        platforms: Sequence[str] = (),
    ) -> builtins.list[ImageDeleteResponseItem]:
        """Untag, and delete when it was the last name; Conflict when containers use it.

        With ``platforms`` (``force`` is required) only what they need of it goes, names stay.
        """
        return self._loop.call(
            self._service.remove(ref, force=force, noprune=noprune, platforms=platforms)
        )

    def prune(self, filters: Filters | None = None) -> ImagesPruneReport:
        """Delete unused images (dangling ones unless ``dangling=false``)."""
        return self._loop.call(self._service.prune(filters))

    def load(
        self,
        body: Iterable[bytes],
        *,
        quiet: bool = False,
        platform: str | Sequence[str] | None = None,
    ) -> Iterator[Progress]:
        """Take in a docker-archive or OCI layout tar, compressed or not."""
        return self._loop.iterate(
            self._loop.call(self._service.load(iterate(body), quiet=quiet, platform=platform))
        )

    def save(
        self,
        refs: builtins.list[str],
        platform: str | Sequence[str] | None = None,
        without: Sequence[str] = (),
    ) -> Iterator[bytes]:
        """A tar with the images (docker-archive and OCI layout in one), some blobs left out."""
        return self._loop.iterate(self._loop.call(self._service.save(refs, platform, without)))

    def import_(self, body: Iterable[bytes], options: ImportOptions) -> Iterator[Progress]:
        """Make an image of a root file system tar; the last status is the new id."""
        return self._loop.iterate(self._loop.call(self._service.import_(iterate(body), options)))

    def pull(
        self,
        ref: str,
        *,
        tag: str = "",
        platform: str | None = None,
        auth: RegistryAuth | None = None,
        all_tags: bool = False,
    ) -> Iterator[Progress]:
        """Fetch an image from its registry."""
        return self._loop.iterate(
            self._loop.call(
                self._service.pull(ref, tag=tag, platform=platform, auth=auth, all_tags=all_tags)
            )
        )

    def push(
        self,
        ref: str,
        *,
        tag: str = "",
        platform: str | None = None,
        auth: RegistryAuth | None = None,
    ) -> Iterator[Progress]:
        """Send an image to its registry; without ``tag``, all tags of the repository."""
        return self._loop.iterate(
            self._loop.call(self._service.push(ref, tag=tag, platform=platform, auth=auth))
        )

    def search(
        self,
        term: str,
        *,
        limit: int | None = None,
        filters: Filters | None = None,
        auth: RegistryAuth | None = None,
    ) -> builtins.list[ImageSearchItem]:
        """Search the default registry."""
        return self._loop.call(self._service.search(term, limit=limit, filters=filters, auth=auth))

    def distribution(self, ref: str, auth: RegistryAuth | None = None) -> DistributionInspect:
        """Descriptor and platforms of a reference, asked of its registry."""
        return self._loop.call(self._service.distribution(ref, auth))


class Builds:
    """Builds of one engine."""

    def __init__(self, service: aio.Builds, loop: Loop) -> None:
        self._service = service
        self._loop = loop

    def build(self, body: Iterable[bytes] | None, options: BuildOptions) -> Iterator[Progress]:
        """Build from a context tar (None: no context) and tag the result."""
        context = iterate(body) if body is not None else None
        return self._loop.iterate(self._service.build(context, options))

    def cancel(self, identity: str) -> None:
        """End a build that was given this identity."""
        self._loop.call(self._service.cancel(identity))

    def usage(self) -> builtins.list[BuildCache]:
        """The records of the build cache."""
        return self._loop.call(self._service.usage())

    def prune(
        self,
        filters: Filters | None = None,
        *,
        all: bool = False,
        keep: int = 0,
        max_used: int = 0,
        min_free: int = 0,
    ) -> BuildPruneReport:
        """Forget records of the build cache that no build uses."""
        return self._loop.call(
            self._service.prune(filters, all=all, keep=keep, max_used=max_used, min_free=min_free)
        )


class Events:
    """The event bus of one engine. Publishing never waits."""

    def __init__(self, service: aio.Events, loop: Loop) -> None:
        self._service = service
        self._loop = loop

    def subscribe(
        self,
        since: float | None = None,
        until: float | None = None,
        filters: Filters | None = None,
    ) -> Iterator[EventMessage]:
        """History from ``since`` on, then live events up to ``until``, both in Unix seconds.

        With neither there is no history; with ``until`` alone it is all that was until then.
        Without ``until`` it never ends.
        """
        return self._loop.iterate(self._loop.call(self._service.subscribe(since, until, filters)))


class System:
    """Information about one engine."""

    def __init__(self, service: aio.System, loop: Loop) -> None:
        self._service = service
        self._loop = loop

    def info(self) -> SystemInfo:
        """Counts, limits and features, read from the kernel and the state."""
        return self._loop.call(self._service.info())

    def version(self) -> SystemVersion:
        """Versions of the engine, its API and the kernel."""
        return self._loop.call(self._service.version())

    def df(self, types: list[str] | None = None, *, verbose: bool = True) -> SystemDataUsage:
        """Disk usage of images, containers, volumes and build cache, in bytes."""
        return self._loop.call(self._service.df(types, verbose=verbose))

    def ping(self) -> float:
        """Seconds since the Unix epoch: the engine's loop turns."""
        return self._loop.call(self._service.ping())

    def auth(self, body: AuthConfig) -> AuthResponse:
        """Check credentials with a registry; Unauthorized when refused."""
        return self._loop.call(self._service.auth(body))
