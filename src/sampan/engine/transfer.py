"""Images from registries, and other questions to them; progress as dockerd streams it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from sampan.engine import imageflows
from sampan.engine.core import Core
from sampan.engine.filters import boolean
from sampan.engine.imageflows import Progress, failure
from sampan.engine.options import Filters, RegistryAuth
from sampan.errors import (
    Forbidden,
    InvalidParameter,
    NotFound,
    SampanError,
    Unauthorized,
    Unavailable,
)
from sampan.image import LayerProgress as UnpackProgress
from sampan.image import open_image
from sampan.image.config import parse as parse_config
from sampan.image.document import wire_descriptor, wire_platform
from sampan.model.descriptor import DOCKER_CONFIG, OCI_CONFIG
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
    candidates = core.registry.settings.registries.candidates(text)
    wanted = Platform.parse(platform) if platform else None
    account = credentials(auth)

    async def pull_all(reference: Reference, report: Callable[[Event], None]) -> None:
        names = [reference.with_default_tag()]
        if all_tags and not tag:
            found = await core.registry.tags(reference, account)
            names = [Reference(reference.domain, reference.path, each) for each in found]
        for name in names:
            pulling = _pull_one(core, name, wanted, account, report)
            await core.traced("pull image", pulling, image=str(name))

    async def work(report: Callable[[Event], None]) -> None:
        for reference in candidates[:-1]:
            try:
                return await pull_all(reference, report)
            except (NotFound, Unauthorized, Forbidden, Unavailable):
                continue  # a short name: the next search registry may have it
        await pull_all(candidates[-1], report)

    return stream(work)


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
            (reference, by_digest(reference, pulled.root.digest)),
            pulled.referrers,
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


def by_digest(reference: Reference, digest: Digest) -> Reference:
    """The name by which an image is known once a registry has it: ``repo@digest``."""
    return Reference(reference.domain, reference.path, "", digest)


def stream(
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
    chosen = filters or {}
    official = boolean(chosen, "is-official")
    automated = boolean(chosen, "is-automated")
    stars = max((_stars(value) for value in chosen.get("stars", ())), default=0)
    found = await core.registry.search(term, limit=limit or 25, credentials=credentials(auth))
    return [
        ImageSearchItem(
            name=item.name,
            description=item.description,
            star_count=item.stars,
            is_official=item.official,
            is_automated=False,
        )
        for item in found
        if item.stars >= stars and official in (None, item.official) and not automated
    ]


def _stars(value: str) -> int:
    if not value.isdecimal():
        raise InvalidParameter(f"invalid filter 'stars={value}'")
    return int(value)


async def distribution(core: Core, ref: str, auth: RegistryAuth | None) -> DistributionInspect:
    """See :meth:`sampan.engine.images.Images.distribution`."""
    reference = core.registry.settings.registries.resolve(ref)
    manifest, config = await core.registry.described(reference, credentials(auth))
    found = [entry.platform for entry in manifest.manifests if entry.platform is not None]
    if manifest.config is not None and manifest.config.media_type in (OCI_CONFIG, DOCKER_CONFIG):
        found.append(parse_config(config).platform)
    platforms = [wire_platform(platform) for platform in found]
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
