"""``engine.build(".", tags=["app"])``: an image built in this process, its id in hand."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sampan.build import layoutaddress
from sampan.build.arguments import BuildArguments, BuiltImage, News
from sampan.build.executor import Limits
from sampan.build.outputs import Attest, attest, parse_output
from sampan.build.progress import Vertex
from sampan.build.recipe import Recipe
from sampan.build.request import entitlements
from sampan.dockerfile.parser import parse
from sampan.engine.buildcontext import dockerfile_in, fetch, ignore_in
from sampan.engine.buildjob import Context, Job, Jobs, LayoutPlace, Place
from sampan.engine.options import RegistryAuth
from sampan.errors import InvalidParameter
from sampan.kernel.mount import descriptor
from sampan.layer import archive_put
from sampan.layer.model import Readable
from sampan.model.digest import Digest
from sampan.model.platform import Platform
from sampan.model.reference import Reference

if TYPE_CHECKING:
    from sampan.engine.engine import Engine


async def build(
    engine: Engine, source: Path | str | Recipe | None, options: BuildArguments
) -> BuiltImage:
    """Build; see :meth:`sampan.engine.engine.Engine.build`."""
    async with AsyncExitStack() as stack:
        job = await _job(engine, source, options, stack)
        auth = options.get("auth", {})

        async def credentials(domain: str) -> RegistryAuth | None:
            return auth.get(domain)

        async def deliver(number: int, chunks: AsyncIterator[bytes]) -> None:
            await _deliver(engine, _destination(job, number), chunks)

        jobs = Jobs(core=engine.core, builds=engine.builds)
        finished = await jobs.run(job, credentials, _News(options.get("news")), deliver)
    return BuiltImage(id=finished.image_id, metadata=finished.metadata)


async def _job(
    engine: Engine,
    source: Path | str | Recipe | None,
    options: BuildArguments,
    stack: AsyncExitStack,
) -> Job:
    builds = engine.builds
    text, source = _written(source, options.get("text"))
    where = options.get("context", source)
    filename = options.get("file", "Dockerfile")
    place: Place | None = None
    if where is not None:
        place = await _place(engine, where, filename, stack)
    if text is None:
        if place is None:
            raise InvalidParameter("nothing to build: no directory, no text, no recipe")
        text = await builds.threads.run(_read, place.path, filename)
    caches = tuple(dict(one) for one in options.get("cache_from", ()))
    contexts = await _contexts(engine, options, stack)
    return Job(
        file=parse(text),
        filename=filename,
        context=place,
        contexts=contexts,
        target=options.get("target", ""),
        platforms=tuple(Platform.parse(one) for one in options.get("platforms", ())),
        arguments=options.get("arguments", {}),
        labels=options.get("labels", {}),
        secrets=options.get("secrets", {}),
        ssh=options.get("ssh", {}),
        no_cache=options.get("no_cache", False),
        no_cache_stages=frozenset(options.get("no_cache_filter", ())),
        pull=options.get("pull", False),
        network=options.get("network", "default"),
        extra_hosts=tuple(options.get("extra_hosts", ())),
        entitlements=entitlements(options.get("allow", ())),
        limits=options.get("limits", Limits()),
        tags=tuple(Reference.parse(tag).with_default_tag() for tag in options.get("tags", ())),
        outputs=tuple(
            parse_output(one) if isinstance(one, str) else one for one in options.get("outputs", ())
        ),
        attest=_attest(options),
        cache_from=caches,
        cache_to=tuple(dict(one) for one in options.get("cache_to", ())),
        cache_directories=_directories(caches),
    )


async def _contexts(
    engine: Engine, options: BuildArguments, stack: AsyncExitStack
) -> dict[str, Context]:
    """The named contexts: directories of this host, or what they name."""
    found: dict[str, Context] = {}
    for name, value in options.get("contexts", {}).items():
        if isinstance(value, str) and value.startswith(layoutaddress.SCHEME):
            image = await engine.builds.threads.run(layoutaddress.find, value)
            digest = Digest.parse(image.digest)
            found[name] = LayoutPlace(path=Path(image.directory), digest=digest)
        elif isinstance(value, str) and not _is_directory(value):
            found[name] = value
        else:
            found[name] = await _place(engine, value, "", stack)
    return found


def _attest(options: BuildArguments) -> Attest:
    found = {}
    if options.get("provenance"):
        found["provenance"] = options["provenance"]
    if options.get("sbom"):
        found["sbom"] = ""
    return attest(found)


def _directories(caches: Sequence[Mapping[str, str]]) -> dict[int, Path]:
    """The directories of local caches that are there."""
    return {
        number: Path(one["src"])
        for number, one in enumerate(caches)
        if one.get("type") == "local" and _is_directory(one.get("src", ""))
    }


def _written(
    source: Path | str | Recipe | None, text: str | None
) -> tuple[str | None, Path | str | None]:
    """The text of the Dockerfile, if it is given, and what is a place."""
    if not isinstance(source, Recipe):
        return text, source
    if text is not None:
        raise InvalidParameter("a recipe comes without the text of a Dockerfile")
    return source.dockerfile(), None


async def _place(engine: Engine, where: Path | str, filename: str, stack: AsyncExitStack) -> Place:
    """A context: a directory of this host, or an address to fetch from."""
    builds = engine.builds
    path = Path(where)
    if isinstance(where, str) and "://" in where:
        directory = await stack.enter_async_context(builds.contexts.temporary())
        path = await builds.threads.run_long(fetch, where, directory)
    elif not path.is_dir():
        raise InvalidParameter(f"{where} is no directory")
    with descriptor(os.open(path, os.O_RDONLY | os.O_DIRECTORY)) as root:
        ignore = await builds.threads.run(ignore_in, root, filename)
    return Place(path=path.absolute(), ignore=ignore)


def _is_directory(path: str) -> bool:
    return os.path.isdir(path)


def _read(path: Path, filename: str) -> str:
    with descriptor(os.open(path, os.O_RDONLY | os.O_DIRECTORY)) as root:
        return dockerfile_in(root, filename)


def _destination(job: Job, number: int) -> tuple[str, bool]:
    """Where output ``number`` goes and whether it is a directory; caches follow the outputs."""
    count = len(job.outputs) or 1
    if number >= count:
        local = [one.get("dest", "") for one in job.cache_to if one.get("type") == "local"]
        return local[number - count], True
    one = job.outputs[number]
    return one.destination, one.kind == "local" or not one.as_tar


async def _deliver(
    engine: Engine, destination: tuple[str, bool], chunks: AsyncIterator[bytes]
) -> None:
    path, directory = destination
    if path in ("", "-"):
        raise InvalidParameter("an output needs a dest that is a path")
    write = partial(_unpack if directory else _write, path)
    await engine.builds.consume(chunks, write)


def _unpack(path: str, stream: Readable) -> None:
    Path(path).mkdir(parents=True, exist_ok=True)
    with descriptor(os.open(path, os.O_RDONLY | os.O_DIRECTORY)) as root:
        archive_put(root, "/", stream)


def _write(path: str, stream: Readable) -> None:
    """A file that appears when it is complete."""
    temporary = Path(f"{path}.part")
    try:
        with temporary.open("wb") as file:
            while data := stream.read(1 << 20):
                file.write(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


class _News:
    """Progress for whoever wants lines."""

    def __init__(self, news: News | None) -> None:
        self._news: News = news or (lambda _name, _data: None)

    def started(self, vertex: Vertex) -> None:
        """See :class:`sampan.build.progress.Progress`."""
        self._news(vertex.name, b"")

    def log(self, vertex: Vertex, stream: int, data: bytes) -> None:
        """See :class:`sampan.build.progress.Progress`."""
        self._news(vertex.name, data)

    def completed(self, vertex: Vertex, *, cached: bool = False, error: str = "") -> None:
        """See :class:`sampan.build.progress.Progress`."""

    def warning(self, vertex: Vertex | None, message: str) -> None:
        """See :class:`sampan.build.progress.Progress`."""
        self._news("warning", message.encode())
