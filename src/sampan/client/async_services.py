"""Images, networks, volumes, events and system of a remote engine for asynchronous callers."""

from __future__ import annotations

import builtins
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

from sampan.client import images, services
from sampan.client.threads import Threads
from sampan.wire.base import Json
from sampan.wire.container import FilesystemChange
from sampan.wire.image import (
    AuthConfig,
    AuthResponse,
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
from sampan.wire.network import (
    NetworkConnectRequest,
    NetworkCreateRequest,
    NetworkCreateResponse,
    NetworkDisconnectRequest,
    NetworkInspect,
    NetworksPruneReport,
    NetworkSummary,
)
from sampan.wire.options import Filters, ImportOptions, RegistryAuth
from sampan.wire.system import EventMessage, SystemDataUsage, SystemInfo, SystemVersion
from sampan.wire.volume import Volume, VolumeCreateRequest, VolumeListResponse, VolumesPruneReport


class Images:
    """Images of a remote engine. ``ref`` is a reference, an id or a unique id prefix."""

    def __init__(self, service: images.Images, threads: Threads) -> None:
        self._service = service
        self._threads = threads

    async def list(
        self,
        *,
        all: bool = False,
        filters: Filters | None = None,
        shared_size: bool = False,
        digests: bool = False,
        manifests: bool = False,
    ) -> builtins.list[ImageSummary]:
        """Images, newest first."""
        return await self._threads.run(
            self._service.list,
            all=all,
            filters=filters,
            shared_size=shared_size,
            digests=digests,
            manifests=manifests,
        )

    async def inspect(
        self, ref: str, *, manifests: bool = False, platform: str | None = None
    ) -> ImageInspect:
        """Everything known about an image; NotFound ``No such image: ref``."""
        return await self._threads.run(
            self._service.inspect, ref, manifests=manifests, platform=platform
        )

    async def history(
        self, ref: str, platform: str | None = None
    ) -> builtins.list[ImageHistoryResponseItem]:
        """The image's layers and the instructions that made them, newest first."""
        return await self._threads.run(self._service.history, ref, platform)

    async def layers(self, ref: str, platform: str | None = None) -> builtins.list[ImageLayer]:
        """The layers of an image, lowest first."""
        return await self._threads.run(self._service.layers, ref, platform)

    async def changes(self, ref: str, since: str = "") -> builtins.list[FilesystemChange]:
        """What an image changed: its last layer, or everything ``since`` another image."""
        return await self._threads.run(self._service.changes, ref, since)

    async def mount(self, ref: str) -> ImageMount:
        """The mount that shows an image read-only; its layers stay until :meth:`unmount`."""
        return await self._threads.run(self._service.mount, ref)

    async def unmount(self, ref: str) -> None:
        """No longer keep a mounted image; NotFound when it is not mounted."""
        await self._threads.run(self._service.unmount, ref)

    async def missing(self, digests: Sequence[str]) -> builtins.list[str]:
        """Those of ``digests`` (of blobs) that are not stored here."""
        return await self._threads.run(self._service.missing, digests)

    async def tag(self, ref: str, repo: str, tag: str = "") -> None:
        """Give an image another name."""
        await self._threads.run(self._service.tag, ref, repo, tag)

    async def remove(
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
        return await self._threads.run(
            self._service.remove, ref, force=force, noprune=noprune, platforms=platforms
        )

    async def prune(self, filters: Filters | None = None) -> ImagesPruneReport:
        """Delete unused images (dangling ones unless ``dangling=false``)."""
        return await self._threads.run(self._service.prune, filters)

    async def load(
        self,
        body: Iterable[bytes],
        *,
        quiet: bool = False,
        platform: str | Sequence[str] | None = None,
    ) -> AsyncIterator[dict[str, Json]]:
        """Take in a docker-archive or OCI layout tar, compressed or not."""
        items = await self._threads.run(self._service.load, body, quiet=quiet, platform=platform)
        return self._threads.iterate(items)

    async def save(
        self,
        refs: builtins.list[str],
        platform: str | Sequence[str] | None = None,
        without: Sequence[str] = (),
    ) -> AsyncIterator[bytes]:
        """A tar with the images (docker-archive and OCI layout in one), some blobs left out."""
        items = await self._threads.run(self._service.save, refs, platform, without)
        return self._threads.iterate(items)

    async def import_(
        self, body: Iterable[bytes], options: ImportOptions
    ) -> AsyncIterator[dict[str, Json]]:
        """Make an image of a root file system tar; the last status is the new id."""
        items = await self._threads.run(self._service.import_, body, options)
        return self._threads.iterate(items)

    async def pull(
        self,
        ref: str,
        *,
        tag: str = "",
        platform: str | None = None,
        auth: RegistryAuth | None = None,
        all_tags: bool = False,
    ) -> AsyncIterator[dict[str, Json]]:
        """Fetch an image from its registry; without a tag it is ``latest``."""
        items = await self._threads.run(
            self._service.pull, ref, tag=tag, platform=platform, auth=auth, all_tags=all_tags
        )
        return self._threads.iterate(items)

    async def push(
        self,
        ref: str,
        *,
        tag: str = "",
        platform: str | None = None,
        auth: RegistryAuth | None = None,
    ) -> AsyncIterator[dict[str, Json]]:
        """Send an image to its registry; without ``tag``, all tags of the repository."""
        items = await self._threads.run(
            self._service.push, ref, tag=tag, platform=platform, auth=auth
        )
        return self._threads.iterate(items)

    async def search(
        self,
        term: str,
        *,
        limit: int | None = None,
        filters: Filters | None = None,
        auth: RegistryAuth | None = None,
    ) -> builtins.list[ImageSearchItem]:
        """Search the default registry."""
        return await self._threads.run(
            self._service.search, term, limit=limit, filters=filters, auth=auth
        )

    async def distribution(self, ref: str, auth: RegistryAuth | None = None) -> DistributionInspect:
        """Descriptor and platforms of a reference, asked of its registry."""
        return await self._threads.run(self._service.distribution, ref, auth)


class Networks:
    """Networks of a remote engine. ``ref`` is a name, an id or a unique id prefix."""

    def __init__(self, service: services.Networks, threads: Threads) -> None:
        self._service = service
        self._threads = threads

    async def list(self, filters: Filters | None = None) -> builtins.list[NetworkSummary]:
        """Networks that match."""
        return await self._threads.run(self._service.list, filters)

    async def inspect(self, ref: str, *, verbose: bool = False, scope: str = "") -> NetworkInspect:
        """A network and the containers on it."""
        return await self._threads.run(self._service.inspect, ref, verbose=verbose, scope=scope)

    async def create(self, body: NetworkCreateRequest) -> NetworkCreateResponse:
        """Create a network; Conflict when the name is taken, Forbidden on overlapping pools."""
        return await self._threads.run(self._service.create, body)

    async def remove(self, ref: str) -> None:
        """Remove a network; Forbidden when predefined or in use."""
        await self._threads.run(self._service.remove, ref)

    async def connect(self, ref: str, body: NetworkConnectRequest) -> None:
        """Connect a container, live when it runs."""
        await self._threads.run(self._service.connect, ref, body)

    async def disconnect(self, ref: str, body: NetworkDisconnectRequest) -> None:
        """Disconnect a container, live when it runs."""
        await self._threads.run(self._service.disconnect, ref, body)

    async def prune(self, filters: Filters | None = None) -> NetworksPruneReport:
        """Remove networks no container uses."""
        return await self._threads.run(self._service.prune, filters)


class Volumes:
    """Volumes of a remote engine."""

    def __init__(self, service: services.Volumes, threads: Threads) -> None:
        self._service = service
        self._threads = threads

    async def list(self, filters: Filters | None = None) -> VolumeListResponse:
        """Volumes that match."""
        return await self._threads.run(self._service.list, filters)

    async def inspect(self, name: str) -> Volume:
        """One volume; NotFound ``get x: no such volume``."""
        return await self._threads.run(self._service.inspect, name)

    async def create(self, body: VolumeCreateRequest) -> Volume:
        """Create a volume, or return the one of that name."""
        return await self._threads.run(self._service.create, body)

    async def remove(self, name: str, *, force: bool = False) -> None:
        """Remove a volume; Conflict when a container refers to it."""
        await self._threads.run(self._service.remove, name, force=force)

    async def prune(self, filters: Filters | None = None) -> VolumesPruneReport:
        """Remove unused anonymous volumes (all unused with filter ``all=true``)."""
        return await self._threads.run(self._service.prune, filters)

    async def usage(self) -> builtins.list[Volume]:
        """Every volume with its size (bytes) and reference count, for ``df``."""
        return await self._threads.run(self._service.usage)

    async def rename(self, name: str, new: str) -> Volume:
        """Give an unused local volume another name; Conflict when either is in use."""
        return await self._threads.run(self._service.rename, name, new)

    async def snapshot(
        self, name: str, new: str, labels: Mapping[str, str] | None = None
    ) -> Volume:
        """A new volume with what a local one holds now; ``labels`` None takes the original's."""
        return await self._threads.run(self._service.snapshot, name, new, labels)

    async def export(self, name: str) -> AsyncIterator[bytes]:
        """What a volume holds as a tar stream."""
        return self._threads.iterate(await self._threads.run(self._service.export, name))

    async def import_(self, name: str, body: Iterable[bytes]) -> None:
        """Extract a tar (plain or compressed) into a volume, over what it holds."""
        await self._threads.run(self._service.import_, name, body)


class Events:
    """The events of a remote engine."""

    def __init__(self, service: services.Events, threads: Threads) -> None:
        self._service = service
        self._threads = threads

    async def subscribe(
        self,
        since: float | None = None,
        until: float | None = None,
        filters: Filters | None = None,
    ) -> AsyncIterator[EventMessage]:
        """History from ``since`` on, then live events up to ``until``, both in Unix seconds.

        With neither there is no history; with ``until`` alone it is all that was until then.
        Without ``until`` it never ends.
        """
        items = await self._threads.run(self._service.subscribe, since, until, filters)
        return self._threads.iterate(items)


class System:
    """Information about a remote engine."""

    def __init__(self, service: services.System, threads: Threads) -> None:
        self._service = service
        self._threads = threads

    async def info(self) -> SystemInfo:
        """Counts, limits and features."""
        return await self._threads.run(self._service.info)

    async def version(self) -> SystemVersion:
        """Versions of the engine, its API and the kernel."""
        return await self._threads.run(self._service.version)

    async def df(
        self, types: builtins.list[str] | None = None, *, verbose: bool = True
    ) -> SystemDataUsage:
        """Disk usage of images, containers, volumes and build cache, in bytes."""
        return await self._threads.run(self._service.df, types, verbose=verbose)

    async def ping(self) -> float:
        """Seconds since the Unix epoch at which the daemon answered."""
        return await self._threads.run(self._service.ping)

    async def auth(self, body: AuthConfig) -> AuthResponse:
        """Check credentials with a registry; Unauthorized when refused."""
        return await self._threads.run(self._service.auth, body)
