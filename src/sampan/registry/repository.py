"""One repository at one registry: manifests, blobs, tags, referrers (OCI distribution spec).

Every answer is verified: a manifest asked for by digest has it, one asked for by tag has the
digest the registry claims, and nothing longer than its bound is read into memory.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import quote, urlencode, urljoin, urlsplit

import msgspec

from sampan.errors import DigestMismatch, InvalidParameter, NotFound
from sampan.model.descriptor import OCI_INDEX, Descriptor
from sampan.model.digest import Digest
from sampan.registry import manifest as manifests
from sampan.registry.http import Reply, Request, failure
from sampan.registry.manifest import ACCEPT, MAX_MANIFEST, Manifest
from sampan.registry.session import Answer, Session

_MAX_PAGES = 10_000
_MAX_DIGEST_HEADER = 200


class _Tags(msgspec.Struct):
    tags: list[str] | None = None


class _Catalog(msgspec.Struct):
    repositories: list[str] | None = None


_List = TypeVar("_List", _Tags, _Catalog)


@dataclass(frozen=True, slots=True)
class Repository:
    """The repository ``name`` reached by ``session``, with the rights ``actions``."""

    session: Session
    name: str
    actions: str = "pull"
    #: More scopes in the same token: a repository blobs are mounted from.
    also: str = ""

    @property
    def scope(self) -> str:
        """The token scope requests need."""
        own = f"repository:{self.name}:{self.actions}"
        return f"{own} {self.also}" if self.also else own

    def url(self, path: str) -> str:
        """The URL of ``path`` in the repository."""
        return f"{self.session.base}/v2/{self.name}/{path}"

    async def send(self, request: Request) -> Reply:
        """A request with this repository's scope."""
        return await self.session.send(request, self.scope)

    @asynccontextmanager
    async def blob(
        self, descriptor: Descriptor, start: int = 0, url: str = ""
    ) -> AsyncIterator[Answer]:
        """A blob's bytes from ``start`` on, once, not verified; from ``url`` if that is given."""
        headers = {"Range": f"bytes={start}-"} if start else {}
        target = url or self.url(f"blobs/{descriptor.digest}")
        request = Request(method="GET", url=target, headers=headers)
        async with self.session.stream(request, self.scope) as answer:
            yield answer

    async def read_blob(self, descriptor: Descriptor, limit: int) -> bytes:
        """A small blob, verified; raises DigestMismatch, and InvalidParameter beyond ``limit``."""
        if descriptor.size > limit:
            raise InvalidParameter(f"{descriptor.digest} is larger than {limit} bytes")
        url = self.url(f"blobs/{descriptor.digest}")
        reply = await self.send(Request(method="GET", url=url))
        if reply.status != 200:
            raise failure(reply, str(descriptor.digest))
        _verify(reply.body, descriptor.digest)
        return reply.body

    async def has_blob(self, digest: Digest) -> int | None:
        """The size of a blob that is there, None when it is not."""
        reply = await self.send(Request(method="HEAD", url=self.url(f"blobs/{digest}")))
        if reply.status == 200:
            length = reply.headers.get("content-length", "")
            return int(length) if length.isascii() and length.isdigit() else 0
        if reply.status == 404:
            return None
        raise failure(reply, f"{self.name}: {digest}")

    async def resolve(self, reference: str | Digest) -> Descriptor:
        """What a tag or digest points to, by HEAD, or GET where that tells too little."""
        request = Request(
            method="HEAD", url=self.url(f"manifests/{reference}"), headers={"Accept": ACCEPT}
        )
        reply = await self.send(request)
        claimed = _claimed(reply)
        length = reply.headers.get("content-length", "")
        if reply.status != 200 or claimed is None or not length.isdigit():
            return (await self.manifest(reference)).descriptor
        media_type = reply.headers.get("content-type", "").partition(";")[0].strip()
        return Descriptor(media_type=media_type, digest=claimed, size=int(length))

    async def manifest(self, reference: str | Digest) -> Manifest:
        """A manifest or index, verified; raises :class:`NotFound`."""
        url = self.url(f"manifests/{reference}")
        request = Request(method="GET", url=url, headers={"Accept": ACCEPT})
        reply = await self.send(request)
        if reply.status != 200:
            raise failure(reply, f"{self.name}: manifest {reference}")
        if len(reply.body) > MAX_MANIFEST:
            raise InvalidParameter(f"manifest {reference} is larger than {MAX_MANIFEST} bytes")
        wanted = reference if isinstance(reference, Digest) else _claimed(reply)
        if wanted is not None:
            _verify(reply.body, wanted)
        return manifests.parse(reply.body, reply.headers.get("content-type", ""), wanted)

    async def put_manifest(self, manifest: Manifest, reference: str = "") -> bool:
        """Push a manifest under a tag, or its digest; whether the registry noted its subject."""
        target = reference or str(manifest.digest)
        request = Request(
            method="PUT",
            url=self.url(f"manifests/{target}"),
            headers={"Content-Type": manifest.media_type},
            body=manifest.raw,
        )
        reply = await self.send(request)
        if reply.status not in (200, 201, 202):
            raise failure(reply, f"{self.name}: pushing manifest {target}")
        claimed = _claimed(reply)
        comparable = claimed and claimed.algorithm == manifest.digest.algorithm
        if comparable and claimed != manifest.digest:
            raise DigestMismatch(f"the registry stored {claimed}, not {manifest.digest}")
        return "oci-subject" in reply.headers

    async def delete_manifest(self, reference: str | Digest) -> None:
        """Delete a manifest by digest, or a tag; raises NotFound, or Unsupported as refused."""
        await self._delete(f"manifests/{reference}")

    async def delete_blob(self, digest: Digest) -> None:
        """Delete a blob; raises NotFound."""
        await self._delete(f"blobs/{digest}")

    async def _delete(self, path: str) -> None:
        reply = await self.send(Request(method="DELETE", url=self.url(path)))
        if reply.status not in (200, 202, 204):
            raise failure(reply, f"{self.name}: deleting {path}")

    async def tags(self, page: int = 1000) -> AsyncIterator[str]:
        """Every tag; raises :class:`NotFound` when the repository is unknown."""
        async for body in self._pages(self.url(f"tags/list?n={page}"), self.scope):
            for tag in _decode(body, _Tags).tags or ():
                yield tag

    async def repositories(self, page: int = 1000) -> AsyncIterator[str]:
        """Every repository of the registry that it lists (Docker's ``_catalog``)."""
        url = f"{self.session.base}/v2/_catalog?n={page}"
        async for body in self._pages(url, "registry:catalog:*"):
            for name in _decode(body, _Catalog).repositories or ():
                yield name

    async def referrers(self, subject: Digest, artifact_type: str = "") -> list[Descriptor]:
        """Manifests that have ``subject`` as their subject, of one artifact type if given.

        Falls back to the referrers tag where the registry lacks the API.
        """
        query = f"?{urlencode({'artifactType': artifact_type})}" if artifact_type else ""
        found: list[Descriptor] = []
        try:
            async for body in self._pages(self.url(f"referrers/{subject}{query}"), self.scope):
                found += manifests.parse(body, OCI_INDEX).manifests
        except NotFound:
            found = list(await self.referrers_tag(subject))
        return [item for item in found if artifact_type in ("", item.artifact_type)]

    async def referrers_tag(self, subject: Digest) -> tuple[Descriptor, ...]:
        """What the referrers tag lists (OCI distribution spec, "Referrers Tag Schema")."""
        try:
            index = await self.manifest(referrers_tag(subject))
        except NotFound:
            return ()
        return index.manifests if index.media_type == OCI_INDEX else ()

    async def add_to_referrers_tag(self, manifest: Manifest) -> None:
        """List ``manifest`` among its subject's referrers at a registry without the API."""
        if manifest.subject is None:
            return
        known = await self.referrers_tag(manifest.subject.digest)
        if any(item.digest == manifest.digest for item in known):
            return
        own = manifests.encode_descriptor(manifest.descriptor)
        if manifest.artifact_type:
            own["artifactType"] = manifest.artifact_type
        if manifest.annotations:
            own["annotations"] = dict(manifest.annotations)
        raw = manifests.encode_index([*map(manifests.encode_descriptor, known), own])
        tag = referrers_tag(manifest.subject.digest)
        await self.put_manifest(manifests.parse(raw, OCI_INDEX), tag)

    async def _pages(self, url: str, scope: str) -> AsyncIterator[bytes]:
        """The bodies of a list's pages, following ``Link`` headers on the same host only."""
        for _ in range(_MAX_PAGES):
            reply = await self.session.send(Request(method="GET", url=url), scope)
            if reply.status != 200:
                raise failure(reply, self.name)
            yield reply.body
            following = _next(reply.headers.get("link", ""))
            if not following:
                return
            url = urljoin(url, following)
            if urlsplit(url)[:2] != urlsplit(self.session.base)[:2]:
                raise InvalidParameter(f"{self.session.host} continues a list on another host")
        raise InvalidParameter(f"{self.session.host} lists without end")


def referrers_tag(subject: Digest) -> str:
    """The tag that lists referrers at registries without the API."""
    return f"{subject.algorithm[:32]}-{subject.hex[:64]}"


def _next(link: str) -> str:
    """The target of ``<target>; rel="next"`` (RFC 5988)."""
    target, bracket, rest = link.partition(">")
    if bracket and target.startswith("<") and "next" in rest:
        return quote(target[1:], safe="/:?&=%~-_.!*'()@,;+$")
    return ""


def _claimed(reply: Reply) -> Digest | None:
    """The digest a registry says its answer has; an unusable one is none."""
    text = reply.headers.get("docker-content-digest", "")
    try:
        return Digest.parse(text) if text and len(text) < _MAX_DIGEST_HEADER else None
    except InvalidParameter:
        return None


def _verify(body: bytes, digest: Digest) -> None:
    actual = Digest.of(body, digest.algorithm)
    if actual != digest:
        raise DigestMismatch(f"the registry sent content with digest {actual}, not {digest}")


def _decode(body: bytes, kind: type[_List]) -> _List:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as error:
        raise InvalidParameter("the registry answered no list") from error
