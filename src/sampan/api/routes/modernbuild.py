"""Builds for our own command line: everything BuildKit's clients can ask for, in one conversation.

The protocol is told in :mod:`sampan.api.buildsession`.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import os
import shutil
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from sampan.api import query
from sampan.api.buildsession import Told, Wire, converse
from sampan.api.call import Call
from sampan.api.router import Effect, Route
from sampan.build.executor import Limits
from sampan.build.needs import context_paths, names
from sampan.build.outputs import attest, output
from sampan.build.remote import check_out, parse_git
from sampan.build.request import Material, entitlements
from sampan.build.stages import plan, platform_arguments
from sampan.dockerfile.ignore import IgnoreMatcher
from sampan.dockerfile.parser import Dockerfile, DockerfileError, excerpt, parse
from sampan.engine.buildcontext import dockerfile_in, fetch, ignore_in, unpack_context
from sampan.engine.buildcontexts import missing, parse_listing, update
from sampan.engine.buildjob import Context, Job, Jobs, LayoutPlace, Place
from sampan.engine.engine import Engine
from sampan.engine.options import RegistryAuth
from sampan.engine.threads import BodyReader
from sampan.errors import InvalidParameter, SampanError, Unsupported
from sampan.model.digest import Digest
from sampan.model.platform import Platform
from sampan.model.reference import Reference


class Asked(msgspec.Struct, forbid_unknown_fields=True, rename="kebab"):
    """What the client asks for. ``dockerfile`` is its text, None to find ``filename`` in a remote
    ``context``; ``context`` is ``""`` (none), ``local`` or an address."""

    filename: str = "Dockerfile"
    dockerfile: str | None = None
    ignore: list[str] | None = None
    context: str = ""
    contexts: dict[str, str] = {}
    keys: dict[str, str] = {}
    target: str = ""
    platforms: list[str] = []
    build_args: dict[str, str] = {}
    labels: dict[str, str] = {}
    secrets: dict[str, str] = {}
    ssh: list[str] = []
    no_cache: bool = False
    no_cache_filter: list[str] = []
    pull: bool = False
    network: str = "default"
    extra_hosts: list[str] = []
    allow: list[str] = []
    limits: dict[str, Any] = {}
    tags: list[str] = []
    outputs: list[tuple[str, dict[str, str]]] = []
    attest: dict[str, str] = {}
    cache_from: list[dict[str, str]] = []
    cache_to: list[dict[str, str]] = []
    auth: dict[str, dict[str, str]] = {}
    call: str = ""
    multi_platform: bool | None = None


@dataclass(slots=True, kw_only=True)
class _Session:
    """One conversation: the inputs of a build fetched from the client, then the build."""

    engine: Engine
    wire: Wire
    told: Told
    asked: Asked
    stack: AsyncExitStack

    async def run(self) -> dict[str, Any]:
        asked = self.asked
        context: Place | None = None
        origin: Material | None = None
        if asked.context == "archive":
            context = Place(path=await self._archive())
        elif asked.context not in ("", "local"):
            path, origin = await self._remote(asked.context)
            context = Place(path=path)
        text = asked.dockerfile
        if text is None:
            if context is None:
                raise InvalidParameter("the client sent no Dockerfile")
            text = await self.engine.builds.threads.run(_file_in, context.path, asked.filename)
        try:
            file = parse(text)
            return await self._with(file, context, origin)
        except SampanError as error:
            raise _placed(error, asked.filename, text) from error

    async def _with(
        self, file: Dockerfile, context: Place | None, origin: Material | None
    ) -> dict[str, Any]:
        asked = self.asked
        if asked.call not in ("", "build"):
            return self._answer(file)
        platforms = tuple(Platform.parse(text) for text in asked.platforms)
        planned = plan(
            file,
            asked.build_args,
            platform_arguments(
                platforms[0] if platforms else Platform.host(), Platform.host(), asked.target
            ),
        )
        needed = planned.needed(planned.target(asked.target))
        ignore = IgnoreMatcher(asked.ignore) if asked.ignore else None
        if context is not None and asked.ignore is None:
            ignore = await self.engine.builds.threads.run(_ignored, context.path, asked.filename)
        if asked.context == "local":
            paths = context_paths(needed)
            if any(planned.base_of(one) != "scratch" for one in needed):
                paths = paths or None  # a base's triggers may want anything
            if paths != ():
                context = await self._local("", paths, ignore)
        elif context is not None:
            context = Place(path=context.path, ignore=ignore)
        contexts: dict[str, Context] = {}
        used = names(planned, needed)
        for name, value in asked.contexts.items():
            if name in used:
                contexts[name] = await self._named(name, value)
        agents = {name: await self._agent(name) for name in asked.ssh}
        job = self._job(file, context, origin, contexts, agents, platforms)
        directories = {}
        for number, one in enumerate(asked.cache_from):
            if one.get("type") == "local" and not one.get("missing"):
                directories[number] = (await self._local(f"cache:{number}", None, None)).path
        job = replace(job, cache_directories=directories)
        jobs = Jobs(core=self.engine.core, builds=self.engine.builds)
        finished = await jobs.run(job, self._credentials, self.told, self._deliver)
        return {"id": finished.image_id, "metadata": finished.metadata}

    def _job(
        self,
        file: Dockerfile,
        context: Place | None,
        origin: Material | None,
        contexts: dict[str, Context],
        agents: dict[str, str],
        platforms: tuple[Platform, ...],
    ) -> Job:
        asked = self.asked
        return Job(
            file=file,
            filename=asked.filename,
            context=context,
            origin=origin,
            contexts=contexts,
            target=asked.target,
            platforms=platforms,
            multi_platform=asked.multi_platform,
            arguments=asked.build_args,
            labels=asked.labels,
            secrets={name: base64.b64decode(value) for name, value in asked.secrets.items()},
            ssh=agents,
            no_cache=asked.no_cache,
            no_cache_stages=frozenset(asked.no_cache_filter),
            pull=asked.pull,
            network=asked.network,
            extra_hosts=tuple(asked.extra_hosts),
            entitlements=entitlements(asked.allow),
            limits=msgspec.convert(asked.limits, Limits),
            tags=tuple(Reference.parse(tag).with_default_tag() for tag in asked.tags),
            outputs=tuple(output(kind, values) for kind, values in asked.outputs),
            attest=attest(asked.attest),
            cache_from=tuple(asked.cache_from),
            cache_to=tuple(asked.cache_to),
        )

    def _answer(self, file: Dockerfile) -> dict[str, Any]:
        """What ``--call`` asks of the Dockerfile instead of building it."""
        from sampan.buildkit import calls
        from sampan.buildkit.attributes import Attributes
        from sampan.buildkit.frontend import Source

        asked = self.asked
        method = {"check": "lint"}.get(asked.call, asked.call)
        if method == "subrequests.describe":
            result = calls.describe()
        else:
            result = calls.answer(
                f"frontend.{method}",
                Source(
                    file=file,
                    filename=asked.filename,
                    ignore=tuple(asked.ignore) if asked.ignore else None,
                ),
                Attributes(target=asked.target, arguments=dict(asked.build_args)),
                Platform.parse(asked.platforms[0]) if asked.platforms else Platform.host(),
            )
        found = {name: value.decode() for name, value in result.metadata.items()}
        return {
            "text": found.get("result.txt", ""),
            "json": found.get("result.json", ""),
            "status": int(found.get("result.statuscode", "0")),
        }

    async def _credentials(self, domain: str) -> RegistryAuth | None:
        raw = self.asked.auth.get(domain)
        return query.credentials(raw, "credentials") if raw else None

    async def _local(
        self, name: str, paths: tuple[str, ...] | None, ignore: IgnoreMatcher | None
    ) -> Place:
        """A directory of the client's, brought up to date."""
        builds, wire = self.engine.builds, self.wire
        key = self.asked.keys.get(name, "")
        title = name or "context"
        directory = await self.stack.enter_async_context(builds.contexts.directory(key, title))
        number, stream = wire.open()
        asked: dict[str, Any] = {"context": name, "stream": number}
        await wire.tell(list={**asked, "paths": list(paths) if paths is not None else None})
        listing = await stream.read()
        wanted = await builds.threads.run(missing, directory, parse_listing(listing))
        body: BodyReader | None = None
        feeding: asyncio.Task[None] | None = None
        if wanted:
            number, stream = wire.open()
            body = BodyReader()
            feeding = asyncio.ensure_future(body.feed(stream.__aiter__()))
            await wire.tell(send={"context": name, "stream": number, "wanted": wanted})
        try:
            path = await builds.threads.run_long(update, directory, listing, body)
        finally:
            if body is not None and feeding is not None:
                body.close()
                feeding.cancel()
                await asyncio.wait([feeding])
                wire.close(number)
        return Place(path=path, ignore=ignore)

    async def _archive(self) -> Path:
        """What the client has on its standard input, unpacked."""
        builds = self.engine.builds
        place = await self.stack.enter_async_context(builds.contexts.temporary())
        number, stream = self.wire.open()
        await self.wire.tell(archive={"stream": number})
        return await unpack_context(builds.threads, stream.__aiter__(), place)

    async def _named(self, name: str, value: str) -> Context:
        if value == "local":
            return await self._local(name, None, None)
        if value.startswith("oci-layout://@"):
            digest = Digest.parse(value.removeprefix("oci-layout://@"))
            return LayoutPlace(path=(await self._local(name, None, None)).path, digest=digest)
        if value.startswith("docker-image://"):
            return value.removeprefix("docker-image://")
        if value.startswith(("http://", "https://")) or parse_git(value) is not None:
            path, _ = await self._remote(value)
            return Place(path=path)
        raise Unsupported(f"named context {name}: {value!r} is not supported")

    async def _remote(self, address: str) -> tuple[Path, Material | None]:
        builds = self.engine.builds
        place = await self.stack.enter_async_context(builds.contexts.temporary())
        keep = self.asked.build_args.get("BUILDKIT_CONTEXT_KEEP_GIT_DIR", "").lower()
        return await builds.threads.run_long(_fetched, address, place, keep in ("1", "true"))

    async def _agent(self, name: str) -> str:
        """A socket on which the client's SSH agent answers, one stream a connection."""
        builds, wire = self.engine.builds, self.wire
        directory = builds.scratch / f"agent-{uuid.uuid4().hex}"
        directory.mkdir(mode=0o700)
        self.stack.callback(shutil.rmtree, directory, True)

        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            number, stream = wire.open()
            await wire.tell(agent={"id": name, "stream": number})

            async def upstream() -> None:
                while data := await reader.read(65536):
                    await wire.data(number, data)
                await wire.end(number)

            sending = asyncio.ensure_future(upstream())
            try:
                async for data in stream:
                    writer.write(data)
                    await writer.drain()
            except ConnectionError:
                return
            finally:
                wire.close(number)
                sending.cancel()
                writer.close()

        path = directory / "socket"
        server = await asyncio.start_unix_server(relay, path)
        os.chmod(path, 0o666)  # the directory is closed; in the step the mount decides
        self.stack.callback(server.close)
        return str(path)

    async def _deliver(self, number: int, chunks: AsyncIterator[bytes]) -> None:
        stream, _ = self.wire.open()
        await self.wire.tell(output={"number": number, "stream": stream})
        async for chunk in chunks:
            await self.wire.data(stream, chunk)
        await self.wire.end(stream)
        self.wire.close(stream)


def _fetched(address: str, place: Path, keep_git: bool) -> tuple[Path, Material]:
    """A context from elsewhere, and what it was. Blocking."""
    if (git := parse_git(address)) is not None:
        keep = keep_git or git.keep_git_directory
        done = check_out(replace(git, keep_git_directory=keep), place)
        return done.directory, Material(uri=address, algorithm="sha1", digest=done.commit)
    path = fetch(address, place)
    (file, *_) = [*(place / "fetched").iterdir(), path / "Dockerfile"]
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    return path, Material(uri=address, algorithm="sha256", digest=found)


def _file_in(path: Path, name: str) -> str:
    root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return dockerfile_in(root, name)
    finally:
        os.close(root)


def _ignored(path: Path, dockerfile: str) -> IgnoreMatcher | None:
    root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return ignore_in(root, dockerfile)
    finally:
        os.close(root)


def _placed(error: SampanError, filename: str, text: str) -> SampanError:
    """The error with the lines of the Dockerfile it is about."""
    source: tuple[str, ...] = tuple(text.split("\n"))
    lines = error.lines
    if isinstance(error, DockerfileError) and error.line:
        lines = (error.line, error.line)
        source = error.source or source
    if lines is not None:
        with contextlib.suppress(IndexError):
            setattr(error, "excerpt", f"{filename}:{lines[0]}\n{excerpt(source, *lines)}")  # noqa: B010
    return error


async def build(call: Call) -> web.StreamResponse:
    """``POST /sampan/build``."""

    async def serve(wire: Wire, told: Told) -> dict[str, Any]:
        message = await wire.message()
        try:
            asked = msgspec.convert(message.get("build"), Asked)
        except msgspec.ValidationError as error:
            raise InvalidParameter(f"malformed build: {error}") from None
        async with AsyncExitStack() as stack:
            session = _Session(engine=call.engine, wire=wire, told=told, asked=asked, stack=stack)
            return await session.run()

    return await converse(call.request, serve)


ROUTES = (Route(method="POST", pattern="/sampan/build", handler=build, effect=Effect.STREAM),)
