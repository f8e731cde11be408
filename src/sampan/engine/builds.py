"""The builds service: Docker's classic ``/build`` on the solver, and the build cache.

The context comes as a tar, lies in a directory of its own for the length of the build, and is
gone afterwards. Progress objects are those of the classic builder, so every docker client shows
them: ``Step 1/3 : FROM x``, `` ---> id``, the output, ``Successfully built id``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sampan.build.cache import BuildCache
from sampan.build.checks import examine
from sampan.build.copying import ContentHashes
from sampan.build.executor import Limits, Secrets
from sampan.build.mounts import CacheDirectories
from sampan.build.progress import Progress as BuildProgress
from sampan.build.request import BuildRequest, Built
from sampan.build.selection import Tree
from sampan.build.solver import solve
from sampan.build.tools import StepFailed, Tools
from sampan.build.workspace import Workspace
from sampan.dockerfile.parser import DockerfileError, excerpt, parse
from sampan.engine.buildcontext import dockerfile_in, fetch, ignore_in
from sampan.engine.buildcontexts import KeptContexts
from sampan.engine.buildoutputs import publish_built
from sampan.engine.buildsteps import Credentials, StepExecutor
from sampan.engine.buildusage import CacheUsage
from sampan.engine.classicprogress import ClassicProgress, step_failure
from sampan.engine.core import Core
from sampan.engine.creation import find_image
from sampan.engine.imageflows import Progress, consume, failure, record
from sampan.engine.images import Images
from sampan.engine.ingests import Ingests
from sampan.engine.options import Filters, RegistryAuth
from sampan.engine.threads import Threads
from sampan.errors import InvalidParameter, NotFound, SampanError
from sampan.kernel.mount import MNT_DETACH, descriptor, umount2
from sampan.layer import archive_put
from sampan.layer.model import Readable
from sampan.model.digest import Digest
from sampan.model.platform import Platform
from sampan.model.reference import Reference
from sampan.wire.image import BuildCache as CacheItem
from sampan.wire.image import BuildPruneReport

_FILE_LIMIT = 4 << 20
_DOCKERFILE = "Dockerfile"


#: Seconds between two looks at what the cache's policies say.
_COLLECT_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """The parameters of ``POST /build``, decoded.

    ``dockerfile`` is a path in the context; ``text`` a Dockerfile that comes without one;
    ``remote`` the address of a git repository, an archive or a Dockerfile to take the context
    from.
    """

    dockerfile: str = _DOCKERFILE
    remote: str = ""
    text: str = ""
    tags: tuple[str, ...] = ()
    target: str = ""
    platform: str = ""
    arguments: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, bytes] = field(default_factory=dict)
    auth: Mapping[str, RegistryAuth] = field(default_factory=dict)
    quiet: bool = False
    no_cache: bool = False
    cache_from: tuple[str, ...] = ()
    pull: bool = False
    network: str = "default"
    extra_hosts: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    id: str = ""


class Builds:
    """Builds of one engine. The directories live below ``data_root/build``."""

    def __init__(self, core: Core, images: Images) -> None:
        self._core = core
        self._images = images
        root = core.config.data_root / "build"
        self._contexts = root / "contexts"
        self._mounts = root / "mounts"
        self._scratch = core.config.exec_root / "build"
        self.cache = BuildCache(root / "cache.db")
        self._hashes = ContentHashes()
        self._directories = CacheDirectories(root / "caches")
        self.contexts = KeptContexts(
            root=root / "kept", transient=self._contexts, threads=core.threads
        )
        self.held = CacheUsage(
            core=core, cache=self.cache, contexts=self.contexts, mounts=self._directories
        )
        self._collected = float("-inf")
        self._running: dict[str, asyncio.Task[Any]] = {}
        core.pins.append(self._pinned)
        self._sweep()

    def _pinned(self) -> set[Digest]:
        return {
            digest
            for layer in self.cache.pinned()
            for digest in (layer.descriptor.digest, layer.chain_id)
        }

    def _sweep(self) -> None:
        """Remove what builds that a crash ended have left."""
        if self._mounts.is_dir():
            for path in self._mounts.iterdir():
                with contextlib.suppress(OSError):
                    umount2(str(path), MNT_DETACH)
        for directory in (self._contexts, self._mounts, self._scratch):
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir(parents=True, mode=0o700)

    def close(self) -> None:
        """Close the cache."""
        self.cache.close()

    async def build(
        self, body: AsyncIterator[bytes] | None, options: BuildOptions
    ) -> AsyncIterator[Progress]:
        """Build from a context tar (None: no context) and tag the result.

        Yields the classic builder's progress; an error is its last object, or raised when there
        was none before it. Stopping the iteration cancels the build.
        """
        told = False
        async with contextlib.aclosing(self._build(body, options)) as news:
            async for progress in news:
                if not told and isinstance(progress, SampanError):
                    raise progress
                told = True
                yield failure(progress) if isinstance(progress, SampanError) else progress

    async def _build(
        self, body: AsyncIterator[bytes] | None, options: BuildOptions
    ) -> AsyncGenerator[Progress | SampanError, None]:
        source: tuple[str, ...] = ()
        said = False
        try:
            names = [Reference.parse(tag).with_default_tag() for tag in options.tags]
            async with AsyncExitStack() as stack:
                request = await self._request(body, options, stack)
                source = request.file.source
                report = examine(
                    request.file,
                    given=request.arguments,
                    ignore=request.context.ignore if request.context else None,
                    platform=request.platform,
                    target=request.target,
                )
                for warning in report.warnings:
                    line = f"[Warning] {warning.rule}: {warning.message} (line {warning.start})\n"
                    if not options.quiet:
                        said = True
                        yield {"stream": line}
                if report.error:
                    raise report.error
                async for progress in self._solve(request, options, tuple(names)):
                    said = True
                    yield progress
        except DockerfileError as error:
            if said and error.line and (shown := error.source or source) and not options.quiet:
                yield {"stream": excerpt(shown, error.line, error.line) + "\n"}
            yield error
        except SampanError as error:
            yield error

    async def _solve(
        self, request: BuildRequest, options: BuildOptions, names: tuple[Reference, ...]
    ) -> AsyncIterator[Progress]:
        core = self._core
        news = ClassicProgress(quiet=options.quiet, image_of=self._short_id)
        async with core.ingests:
            tools = self.tools(_credentials(options.auth))
            task = core.tasks.spawn(
                core.traced("build image", solve(request, tools, news)), "build", quiet=True
            )
            identity = options.id or uuid.uuid4().hex
            self._running[identity] = task
            task.add_done_callback(lambda _: news.end())
            try:
                async for progress in news:
                    yield progress
                built = await task
            except StepFailed as error:
                yield step_failure(error)
                return
            except asyncio.CancelledError:
                if not task.cancelled():
                    raise
                yield failure(SampanError("the build was cancelled"))
                return
            finally:
                self._running.pop(identity, None)
                task.cancel()
                await asyncio.wait([task])
                self._ended()
            image = built.image
            entry = await record(core, image.target, image.id, names)
            publish_built(core, entry, names)
        yield {"aux": {"ID": str(image.id)}}
        if options.quiet:
            yield {"stream": f"{image.id}\n"}
            return
        yield {"stream": f" ---> {image.id.short}\n"}
        yield {"stream": f"Successfully built {image.id.short}\n"}
        for name in names:
            yield {"stream": f"Successfully tagged {name.familiar}\n"}

    def _short_id(self, name: str) -> str:
        """The short id of an image that is here; "" when none is."""
        try:
            entry, _ = self._core.images.find(name)
        except SampanError:
            return ""
        return entry.id.short

    async def solve(self, request: BuildRequest, tools: Tools, progress: BuildProgress) -> Built:
        """Build for a client that has its own way of telling progress and naming the result.

        What is built lasts as long as the caller stays in :attr:`ingesting`. Cancelling the task
        cancels the build.
        """
        task = asyncio.current_task()
        assert task is not None
        identity = uuid.uuid4().hex
        self._running[identity] = task
        try:
            return await self._core.traced("build image", solve(request, tools, progress))
        finally:
            self._running.pop(identity, None)
            self._ended()

    @property
    def ingesting(self) -> Ingests:
        """While in this context, nothing that was built or fetched is collected."""
        return self._core.ingests

    @property
    def threads(self) -> Threads:
        """Where blocking work goes."""
        return self._core.threads

    async def consume(
        self, body: AsyncIterator[bytes], work: Callable[[Readable], object]
    ) -> object:
        """Run blocking ``work`` over an asynchronous body; whichever fails first decides."""
        return await consume(self._core, body, work)

    @property
    def scratch(self) -> Path:
        """A directory on a tmpfs for what must not reach a disk; empty after a crash."""
        return self._scratch

    @contextlib.asynccontextmanager
    async def unpacked(self, tar: AsyncIterator[bytes]) -> AsyncIterator[Path]:
        """A directory with the files of a tar stream of our own, while the block lasts."""
        directory = self._contexts / uuid.uuid4().hex
        directory.mkdir(mode=0o700)
        threads = self._core.threads
        try:
            with descriptor(os.open(directory, os.O_RDONLY | os.O_DIRECTORY)) as root:

                def unpack(stream: Readable) -> None:
                    archive_put(root, "/", stream)

                await consume(self._core, tar, unpack)
            yield directory
        finally:
            await threads.run_long(shutil.rmtree, directory, True)

    @property
    def mount_directory(self) -> Path:
        """Where a build mounts other roots; unmounted and emptied after a crash."""
        return self._mounts

    @property
    def workspace(self) -> Workspace:
        """The engine's layers as builds see them."""
        return Workspace(content=self._core.content, snapshotter=self._core.snapshots)

    async def triggers(self, reference: str) -> bool:
        """Whether an image has ONBUILD instructions, or is not here to tell."""
        try:
            _, image = await find_image(self._core, reference, None)
        except SampanError:
            return True
        return bool(image.config.defaults.on_build)

    def tools(self, credentials: Credentials) -> Tools:
        """What a solver of this engine works with."""
        core = self._core
        return Tools(
            workspace=self.workspace,
            cache=self.cache,
            executor=StepExecutor(core, self._images, credentials),
            hashes=self._hashes,
            directories=self._directories,
            scratch=self._scratch,
            mount_directory=self._mounts,
            in_thread=core.threads.run_long,
        )

    async def _request(
        self, body: AsyncIterator[bytes] | None, options: BuildOptions, stack: AsyncExitStack
    ) -> BuildRequest:
        threads = self._core.threads
        directory = self._contexts / uuid.uuid4().hex
        directory.mkdir(mode=0o700)
        stack.push_async_callback(threads.run_long, shutil.rmtree, directory, True)
        if options.remote:
            directory = await threads.run_long(fetch, options.remote, directory)
        root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, root)
        os.fchmod(root, 0o755)  # what COPY . makes has this mode; the parent stays closed to others
        if body is not None and not options.remote:

            def unpack(stream: Readable) -> None:
                archive_put(root, "/", stream, owner=(0, 0))

            await consume(self._core, body, unpack)
        text = options.text or await threads.run(dockerfile_in, root, options.dockerfile)
        if not text:
            raise InvalidParameter(f"the Dockerfile ({options.dockerfile}) cannot be empty")
        file = parse(text)
        epoch = options.arguments.get("SOURCE_DATE_EPOCH")
        return BuildRequest(
            file=file,
            context=Tree(root=root, ignore=await threads.run(ignore_in, root, options.dockerfile)),
            context_path=str(directory),
            target=options.target,
            platform=Platform.parse(options.platform) if options.platform else Platform.host(),
            arguments=options.arguments,
            labels=options.labels,
            secrets=Secrets(values=options.secrets),
            confined=True,
            no_cache=options.no_cache or not self._usable_cache(options),
            pull=options.pull,
            network=options.network,
            extra_hosts=options.extra_hosts,
            limits=options.limits,
            now=time.time(),
            epoch=_epoch(epoch) if epoch else None,
        )

    def _usable_cache(self, options: BuildOptions) -> bool:
        """Whether there is a cache to take steps from; who names images means those alone."""
        if not options.cache_from:
            return True
        for name in options.cache_from:
            with contextlib.suppress(NotFound, InvalidParameter):
                self._core.images.find(name)
                return True
        return False

    async def cancel(self, identity: str) -> None:
        """Cancel a running build by the id its client chose; NotFound."""
        task = self._running.get(identity)
        if task is None:
            raise NotFound(f"no such build: {identity}")
        task.cancel()

    async def usage(self) -> list[CacheItem]:
        """What the cache holds, as ``docker system df`` shows it."""
        return await self.held.items()

    async def prune(
        self,
        filters: Filters | None = None,
        *,
        all: bool = False,
        keep: int = 0,
        max_used: int = 0,
        min_free: int = 0,
    ) -> BuildPruneReport:
        """See :meth:`sampan.engine.buildusage.CacheUsage.prune`."""
        return await self.held.prune(
            filters, all=all, keep=keep, max_used=max_used, min_free=min_free
        )

    def _ended(self) -> None:
        """A build is over: see to the cache's policies, now and then."""
        now = time.monotonic()
        if now - self._collected >= _COLLECT_SECONDS and not self._core.closing.is_set():
            self._collected = now
            collecting = self.held.collect(self._core.config.build_gc)
            self._core.tasks.spawn(collecting, "build cache collection", quiet=True)


def _credentials(auth: Mapping[str, RegistryAuth]) -> Credentials:
    async def find(domain: str) -> RegistryAuth | None:
        return auth.get(domain)

    return find


def _epoch(text: str) -> int:
    if not text.isdecimal():
        raise InvalidParameter(f"invalid SOURCE_DATE_EPOCH: {text!r}")
    return int(text)
