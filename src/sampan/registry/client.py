"""The registry client: opened once, it serves any number of pulls and pushes at the same time.

::

    async with Registry(Settings()) as registry:
        pulled = await registry.pull(reference, content=store, platform=platform)
        await registry.push(reference, pulled.root.digest, content=store)

It holds what is shared: connections and tokens per host and account while somebody uses them, the
transfers under way, the threads that write, and the limits.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from sampan.content import ContentStore
from sampan.errors import NotFound, SampanError, Unreachable
from sampan.model.descriptor import Descriptor
from sampan.model.digest import Digest
from sampan.model.platform import Platform
from sampan.model.reference import DEFAULT_DOMAIN, Reference
from sampan.registry.auth import Authenticator
from sampan.registry.cosign import Signer
from sampan.registry.credentials import NONE, Credentials
from sampan.registry.download import Transfers
from sampan.registry.http import Request, failure
from sampan.registry.lookaside import Lookaside
from sampan.registry.manifest import Manifest
from sampan.registry.policy import Policy
from sampan.registry.progress import Completed, Listener, Warned, ignore
from sampan.registry.pull import MAX_CONFIG, Pull, Pulled
from sampan.registry.push import Push
from sampan.registry.registries import Endpoint, Registries
from sampan.registry.repository import Repository
from sampan.registry.search import HUB_INDEX, Found, search
from sampan.registry.session import ConnectionRefused, Patience, Session, UntrustedCertificate
from sampan.registry.tls import Certificates, Proxies


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to talk to registries.

    ``policy`` says which images are accepted, by their signatures, of which ``lookaside`` tells
    where the simple ones are; ``signer`` signs what is pushed. ``referrers`` brings what refers to
    an image (attached signatures, SBOMs) along with it. ``downloads`` and ``uploads`` limit
    blobs in transit at the same time; ``chunk`` is the most bytes of an upload request, None for a
    blob in one.
    """

    registries: Registries = field(default_factory=Registries)
    certificates: Certificates = field(default_factory=Certificates)
    proxies: Proxies = field(default_factory=Proxies)
    patience: Patience = field(default_factory=Patience)
    policy: Policy = field(default_factory=Policy)
    lookaside: Lookaside = field(default_factory=Lookaside)
    signer: Signer | None = None
    referrers: bool = False
    downloads: int = 3
    uploads: int = 5
    chunk: int | None = None
    user_agent: str = "sampan"


_T = TypeVar("_T")
_Key = tuple[str, str, bool, Credentials]


class Registry:
    """Pulls, pushes and questions; an async context manager."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.downloads = Transfers(self.settings.downloads)
        self.upload_slots = asyncio.Semaphore(self.settings.uploads)
        self.threads = ThreadPoolExecutor(
            2 * self.settings.downloads + 2, thread_name_prefix="registry-content"
        )
        self._sessions: dict[_Key, tuple[Session, int]] = {}
        self._schemes: dict[tuple[str, bool], str] = {}

    async def __aenter__(self) -> Registry:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End; transfers nobody waits for have ended before."""
        for session, _ in self._sessions.values():
            await session.close()
        self._sessions.clear()
        self.threads.shutdown(wait=False)

    # -- connections

    @asynccontextmanager
    async def connect(
        self,
        endpoint: Endpoint,
        credentials: Credentials = NONE,
        *,
        actions: str = "pull",
        also: str = "",
        listener: Listener = ignore,
    ) -> AsyncIterator[Repository]:
        """The repository at ``endpoint`` with the rights ``actions``.

        ``also`` is one more scope. Credentials are for the origin; a mirror gets none.
        """
        account = NONE if endpoint.mirror else credentials
        scheme = await self._scheme(endpoint, account, listener)
        async with self._session(endpoint, scheme, account, listener) as session:
            yield Repository(session, endpoint.repository, actions, also)

    async def _scheme(
        self, endpoint: Endpoint, credentials: Credentials, listener: Listener
    ) -> str:
        """HTTPS, or HTTP where that is allowed and HTTPS does not work."""
        schemes = endpoint.schemes
        if len(schemes) == 1:
            return schemes[0]
        known = self._schemes.get((endpoint.host, endpoint.insecure))
        if known:
            return known
        failed: SampanError | None = None
        for scheme in schemes:
            async with self._session(endpoint, scheme, credentials, listener) as session:
                try:
                    await session.send(Request(method="GET", url=f"{session.base}/v2/"), "")
                except (ConnectionRefused, UntrustedCertificate) as error:
                    failed = failed or error
                    continue
                except Unreachable as error:
                    failed = error
                    continue
            self._schemes[endpoint.host, endpoint.insecure] = scheme
            return scheme
        raise failed or Unreachable(f"cannot connect to {endpoint.host}")

    @asynccontextmanager
    async def _session(
        self, endpoint: Endpoint, scheme: str, credentials: Credentials, listener: Listener
    ) -> AsyncIterator[Session]:
        """The session for a host and account, kept open while anybody uses it."""
        key = scheme, endpoint.host, endpoint.insecure, credentials
        session, users = self._sessions.get(key, (None, 0))
        if session is None:
            session = self._open(endpoint, scheme, credentials, listener)
        self._sessions[key] = session, users + 1
        try:
            yield session
        finally:
            _, users = self._sessions.get(key, (session, 1))
            if users > 1:
                self._sessions[key] = session, users - 1
            else:
                self._sessions.pop(key, None)
                await session.close()

    def _open(
        self,
        endpoint: Endpoint,
        scheme: str,
        credentials: Credentials,
        listener: Listener,
        *,
        offline: bool = False,
    ) -> Session:
        settings = self.settings
        said: set[str] = set()

        def warn(text: str) -> None:
            if text not in said:
                said.add(text)
                listener(Warned(text=text))

        return Session(
            scheme,
            endpoint.host,
            authenticator=Authenticator(credentials),
            certificates=settings.certificates,
            proxies=settings.proxies,
            insecure=endpoint.insecure,
            patience=settings.patience,
            user_agent=settings.user_agent,
            offline=offline,
            warn=warn,
        )

    # -- operations

    async def pull(
        self,
        reference: Reference,
        *,
        content: ContentStore,
        platform: Platform | None = None,
        credentials: Credentials = NONE,
        listener: Listener = ignore,
        resolved: Callable[[Pulled], Awaitable[None]] | None = None,
        wanted: Callable[[Descriptor], bool] | None = None,
    ) -> Pulled:
        """Bring an image into ``content``: what the tag points to, and all it needs.

        ``platform`` (default: this host's) chooses from an index. ``resolved`` is awaited, beside
        the downloads, once manifest and configuration are stored: the place to unpack, following
        layers with :meth:`ContentStore.follow`. ``wanted`` says which layers are needed at all.

        Raises :class:`NotFound`, :class:`Unauthorized`, :class:`Forbidden`,
        :class:`Unreachable`, :class:`DigestMismatch`. What was fetched stays for the next try.
        """
        pull = Pull(
            self,
            reference.with_default_tag(),
            content,
            platform=platform or Platform.host(),
            credentials=credentials,
            listener=listener,
            wanted=wanted,
        )
        return await pull.run(resolved)

    async def push(
        self,
        reference: Reference,
        root: Digest,
        *,
        content: ContentStore,
        credentials: Credentials = NONE,
        listener: Listener = ignore,
        sources: Callable[[Digest], Iterable[Reference]] | None = None,
        signer: Signer | None = None,
        referrers: Iterable[Descriptor] = (),
    ) -> Completed:
        """Send the manifest or index ``root`` and all it needs to where ``reference`` says.

        ``sources`` names repositories known to hold a blob, to mount it from instead of sending.
        ``referrers`` go after what they refer to, if that goes; else they stay.
        ``signer`` (default: that of the settings) attaches a cosign signature before the tag is
        set. Only what the registry lacks is sent. Raises as :meth:`pull`.
        """
        endpoint = self.settings.registries.push_endpoint(reference)
        push = Push(self, reference, endpoint, content, credentials=credentials, listener=listener)
        return await push.run(root, sources, signer or self.settings.signer, referrers)

    async def resolve(self, reference: Reference, credentials: Credentials = NONE) -> Manifest:
        """The manifest or index a reference points to, mirrors asked first."""
        reference = reference.with_default_tag()
        return await self.first(
            reference,
            credentials,
            lambda repository: repository.manifest(reference.digest or reference.tag),
        )

    async def described(
        self, reference: Reference, credentials: Credentials = NONE
    ) -> tuple[Manifest, bytes]:
        """What :meth:`resolve` finds, and a manifest's configuration: empty for an index."""
        reference = reference.with_default_tag()

        async def ask(repository: Repository) -> tuple[Manifest, bytes]:
            manifest = await repository.manifest(reference.digest or reference.tag)
            config = manifest.config
            raw = b"" if config is None else await repository.read_blob(config, MAX_CONFIG)
            return manifest, raw

        return await self.first(reference, credentials, ask)

    async def first(
        self,
        reference: Reference,
        credentials: Credentials,
        ask: Callable[[Repository], Awaitable[_T]],
        listener: Listener = ignore,
    ) -> _T:
        """The answer of the first endpoint that has one; a mirror may fail in any way."""
        for endpoint in self.settings.registries.endpoints(reference):
            try:
                async with self.connect(endpoint, credentials, listener=listener) as repository:
                    return await ask(repository)
            except SampanError:
                if not endpoint.mirror:
                    raise
        raise NotFound(f"no endpoint for {reference.familiar_name}")

    async def tags(self, reference: Reference, credentials: Credentials = NONE) -> list[str]:
        """All tags of a reference's repository, mirrors asked first."""

        async def ask(repository: Repository) -> list[str]:
            return [tag async for tag in repository.tags()]

        return await self.first(reference, credentials, ask)

    async def search(
        self, text: str, *, limit: int = 25, credentials: Credentials = NONE
    ) -> list[Found]:
        """Repositories that match ``[host/]term``, Docker Hub's without a host."""
        domain, slash, term = text.partition("/")
        if not slash or not ("." in domain or ":" in domain or domain == "localhost"):
            domain, term = HUB_INDEX, text
        if domain == DEFAULT_DOMAIN:
            domain = HUB_INDEX
        insecure = self.settings.registries.is_insecure(domain)
        endpoint = Endpoint(host=domain, repository="", insecure=insecure)
        async with self.connect(endpoint, credentials) as repository:
            return await search(repository, term, limit)

    async def login(self, domain: str, credentials: Credentials) -> str:
        """Check credentials; a refresh token to keep instead of a password, or empty.

        Raises :class:`Unauthorized` when they are wrong.
        """
        endpoint = self.settings.registries.push_endpoint(Reference(domain, "login"))
        scheme = await self._scheme(endpoint, credentials, ignore)
        session = self._open(endpoint, scheme, credentials, ignore, offline=True)
        try:
            reply = await session.send(Request(method="GET", url=f"{session.base}/v2/"), "")
            if reply.status != 200:
                raise failure(reply, f"login to {domain}")
            return session.authenticator.refreshed
        finally:
            await session.close()

    def origin(
        self, reference: Reference, credentials: Credentials = NONE, *, actions: str = "pull"
    ) -> AbstractAsyncContextManager[Repository]:
        """The repository of a reference where it is pushed to, not a mirror."""
        endpoint = self.settings.registries.push_endpoint(reference)
        return self.connect(endpoint, credentials, actions=actions)
