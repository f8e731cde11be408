"""Images from and to registries, their progress as dockerd streams it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

from sampan.engine import imageflows
from sampan.engine.core import Core
from sampan.engine.imageflows import Progress, failure
from sampan.engine.imageviews import parse_repository
from sampan.engine.options import Filters, RegistryAuth
from sampan.errors import InvalidParameter, NotFound, SampanError, Unsupported
from sampan.image import LayerProgress as UnpackProgress
from sampan.image import open_image
from sampan.image.document import wire_descriptor, wire_platform
from sampan.model.digest import Digest
from sampan.model.platform import Platform
from sampan.model.reference import DEFAULT_DOMAIN, Reference
from sampan.registry.client import Registry
from sampan.registry.credentials import NONE, Credentials
from sampan.registry.progress import Event, LayerProgress, Message, Step, as_docker
from sampan.registry.pull import Pulled
from sampan.wire.image import AuthConfig, AuthResponse, DistributionInspect, ImageSearchItem

#: seconds an unpacking layer waits for more bytes of its download
_FOLLOW = 300.0


def credentials(auth: RegistryAuth | None) -> Credentials:
    """What the registry client takes."""
    if auth is None:
        return NONE
    return Credentials(
        username=auth.username,
        password=auth.password,
        identity_token=auth.identity_token,
        registry_token=auth.registry_token,
    )


async def pull(
    core: Core,
    ref: str,
    *,
    tag: str,
    platform: str | None,
    auth: RegistryAuth | None,
    all_tags: bool,
) -> AsyncIterator[Progress]:
    """See :meth:`sampan.engine.images.Images.pull`."""
    text = ref if not tag else f"{ref}@{tag}" if tag.startswith("sha256:") else f"{ref}:{tag}"
    reference = core.registry.settings.registries.resolve(text)
    wanted = Platform.parse(platform) if platform else None
    account = credentials(auth)

    async def work(report: Callable[[Event], None]) -> None:
        names = [reference.with_default_tag()]
        if all_tags and not tag:
            found = await core.registry.tags(reference, account)
            names = [Reference(reference.domain, reference.path, each) for each in found]
        for name in names:
            await _pull_one(core, name, wanted, account, report)

    return _stream(work)


async def _pull_one(
    core: Core,
    reference: Reference,
    platform: Platform | None,
    account: Credentials,
    report: Callable[[Event], None],
) -> None:
    loop = asyncio.get_running_loop()
    tell = _without_repetition(report)

    def unpacking(progress: UnpackProgress) -> None:
        step = Step.PULLED if progress.done else Step.EXTRACTING
        event = LayerProgress(
            digest=progress.digest,
            step=step,
            current=progress.current,
            total=progress.total,
        )
        loop.call_soon_threadsafe(tell, event)

    async def unpack(pulled: Pulled) -> None:
        image = await core.threads.run(
            open_image, core.content, pulled.manifest.descriptor, platform
        )
        await core.threads.run_long(core.unpacker.unpack, image, progress=unpacking, follow=_FOLLOW)

    async with core.ingests:
        before = core.images.lookup(reference)
        pulled = await core.registry.pull(
            reference,
            content=core.content,
            platform=platform,
            credentials=account,
            listener=tell,
            resolved=unpack,
        )
        await imageflows.record(
            core,
            pulled.root.descriptor,
            pulled.config.digest,
            (reference, _by_digest(reference, pulled.root.digest)),
        )
    report(Message(text=f"Digest: {pulled.root.digest}"))
    same = before is not None and before.target.digest == pulled.root.digest
    news = "Image is up to date for" if same else "Downloaded newer image for"
    report(Message(text=f"Status: {news} {reference.familiar}"))
    core.events.publish("image", "pull", reference.familiar, {"name": reference.familiar_name})


def _without_repetition(report: Callable[[Event], None]) -> Callable[[Event], None]:
    """Pass events on, but for "Pull complete" of layers that were here and unpacked already."""
    untouched: set[Digest] = set()

    def tell(event: Event) -> None:
        if isinstance(event, LayerProgress):
            if event.step is Step.PRESENT:
                untouched.add(event.digest)
            elif event.step is Step.PULLED and event.digest in untouched:
                return
            else:
                untouched.discard(event.digest)
        report(event)

    return tell


def _by_digest(reference: Reference, digest: Digest) -> Reference:
    """The name by which an image is known once a registry has it: ``repo@digest``."""
    return Reference(reference.domain, reference.path, "", digest)


async def push(
    core: Core, ref: str, *, tag: str, platform: str | None, auth: RegistryAuth | None
) -> AsyncIterator[Progress]:
    """See :meth:`sampan.engine.images.Images.push`."""
    repository = Reference.parse(ref)
    if platform:
        Platform.parse(platform)
    names = _names_to_push(core, repository, tag)
    account = credentials(auth)

    async def work(report: Callable[[Event], None]) -> None:
        for name in names:
            entry, _ = core.images.find(str(name))
            root = entry.target.digest
            if platform:
                view = await core.threads.run(core.images.view, entry, Platform.parse(platform))
                root = view.manifest.digest
            await core.registry.push(
                name,
                root,
                content=core.content,
                credentials=account,
                listener=report,
                sources=lambda digest: _sources(core, digest),
            )
            if root == entry.target.digest:
                await imageflows.record(core, entry.target, entry.id, (_by_digest(name, root),))
            core.events.publish("image", "push", name.familiar, {"name": name.familiar_name})

    return _stream(work)


def _names_to_push(core: Core, repository: Reference, tag: str) -> list[Reference]:
    if tag or repository.tag:
        name = parse_repository(repository.name, tag or repository.tag)
        if core.images.lookup(name) is None:
            raise NotFound(f"An image does not exist locally with the tag: {name.familiar_name}")
        return [name]
    names = [
        reference
        for entry in core.images
        for reference in entry.references
        if reference.name == repository.name and reference.tag
    ]
    if not names:
        raise NotFound(f"An image does not exist locally with the tag: {repository.familiar_name}")
    return names


def _sources(core: Core, digest: Digest) -> Iterable[Reference]:
    """Repositories that may hold a blob: those of every image that has it."""
    for entry in core.images:
        view = core.images.cached(entry)
        if view is not None and any(blob.digest == digest for blob in view.manifest.blobs):
            yield from entry.references


def _stream(
    work: Callable[[Callable[[Event], None]], Awaitable[None]],
) -> AsyncIterator[Progress]:
    """Run ``work`` and pass on what it reports; leaving early cancels it.

    What goes wrong before there is anything to report is raised, afterwards it is reported.
    """

    async def run() -> AsyncIterator[Progress]:
        inbox: asyncio.Queue[Event | None] = asyncio.Queue()

        async def perform() -> None:
            try:
                await work(inbox.put_nowait)
            finally:
                inbox.put_nowait(None)

        task = asyncio.ensure_future(perform())
        reported = False
        try:
            while (event := await inbox.get()) is not None:
                reported = True
                yield as_docker(event)
            await task
        except SampanError as error:
            if not reported:
                raise
            yield failure(error)
        finally:
            task.cancel()
            await asyncio.wait([task])

    return run()


async def search(
    core: Core,
    term: str,
    *,
    limit: int | None,
    filters: Filters | None,
    auth: RegistryAuth | None,
) -> list[ImageSearchItem]:
    """See :meth:`sampan.engine.images.Images.search`."""
    if limit is not None and not 1 <= limit <= 100:
        raise InvalidParameter("invalid limit: must be between 1 and 100")
    raise Unsupported("searching registries is not supported")


async def distribution(core: Core, ref: str, auth: RegistryAuth | None) -> DistributionInspect:
    """See :meth:`sampan.engine.images.Images.distribution`."""
    reference = core.registry.settings.registries.resolve(ref)
    manifest = await core.registry.resolve(reference, credentials(auth))
    platforms = [
        wire_platform(entry.platform) for entry in manifest.manifests if entry.platform is not None
    ]
    return DistributionInspect(descriptor=wire_descriptor(manifest.descriptor), platforms=platforms)


async def login(registry: Registry, body: AuthConfig) -> AuthResponse:
    """Check credentials with a registry."""
    address = (body.serveraddress or DEFAULT_DOMAIN).removeprefix("https://")
    domain = address.removeprefix("http://").partition("/")[0] or DEFAULT_DOMAIN
    if domain in ("index.docker.io", "registry-1.docker.io"):
        domain = DEFAULT_DOMAIN
    account = Credentials(username=body.username or "", password=body.password or "")
    token = await registry.login(domain, account)
    return AuthResponse(status="Login Succeeded", identity_token=token)
