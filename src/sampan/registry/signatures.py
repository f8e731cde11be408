"""Fetching signatures of a manifest from its repository, judging them by policy, attaching them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sampan.errors import Forbidden, NotFound
from sampan.model.digest import Digest
from sampan.model.reference import Reference
from sampan.registry import cosign, lookaside, notation, simplesigning
from sampan.registry.cosign import Signature, Signer
from sampan.registry.http import Request, failure
from sampan.registry.lookaside import Lookaside
from sampan.registry.manifest import Manifest
from sampan.registry.policy import Accept, Policy, Reject, Signed, Unmet
from sampan.registry.repository import Repository
from sampan.registry.upload import Upload, push


async def enforce(
    policy: Policy,
    places: Lookaside,
    repository: Repository,
    image: Reference,
    candidates: tuple[Digest, ...],
) -> None:
    """That ``image`` meets the policy; raises :class:`Forbidden` saying what it lacks.

    ``places`` tells where simple signatures are.

    ``candidates`` are the digests of which one must be signed: the manifest's, and that of the
    index it was chosen from, which names it.
    """
    for requirement in policy.requirements(image):
        reason = ""
        match requirement:
            case Accept():
                continue
            case Reject():
                reason = "rejected by policy"
            case Unmet(reason=reason):
                pass
            case Signed():
                reason = await _signed(requirement, places, repository, image, candidates)
        if reason:
            raise Forbidden(f"image {image.familiar} is not accepted by policy: {reason}")


async def _signed(
    requirement: Signed,
    places: Lookaside,
    repository: Repository,
    image: Reference,
    digests: tuple[Digest, ...],
) -> str:
    """Empty when a signature of one of ``digests`` meets the requirement; or why none does."""
    if requirement.kind == "signedBy":
        base = places.base(image)
        if not base:
            return "a signature was required, but registries.d names no place for signatures"
        messages = [
            item for digest in digests async for item in _beside(repository, base, image, digest)
        ]
        return await asyncio.to_thread(
            simplesigning.verify,
            messages,
            requirement.keys,
            digests,
            image,
            requirement.identity,
        )
    if not places.attachments(image):
        return "a signature was required, but registries.d wants no attached ones read"
    if requirement.kind == "notationSigned":
        envelopes = [item for digest in digests async for item in _envelopes(repository, digest)]
        return notation.verify(envelopes, requirement.keys, digests, datetime.now(UTC))
    found = [item for digest in digests async for item in _cosigned(repository, digest)]
    return cosign.verify(found, requirement.keys, digests, image, requirement.identity)


async def _beside(
    repository: Repository, base: str, image: Reference, digest: Digest
) -> AsyncIterator[bytes]:
    """The simple signatures of a manifest, from the lookaside at ``base``."""
    for number in range(1, simplesigning.MAX_SIGNATURES + 1):
        url = lookaside.address(base, image, digest, number)
        if url.startswith("file:"):
            found = await asyncio.to_thread(_read, Path(unquote(urlsplit(url).path)))
        else:
            reply = await repository.session.send(Request(method="GET", url=url), "")
            if reply.status not in (200, 404, 410):
                raise failure(reply, url)
            found = reply.body if reply.status == 200 else None
        if found is None:
            return
        if len(found) <= simplesigning.MAX_SIGNATURE:
            yield found


def _read(path: Path) -> bytes | None:
    """A signature's file, None when there is none."""
    try:
        with path.open("rb") as file:
            return file.read(simplesigning.MAX_SIGNATURE + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise Forbidden(f"cannot read the signature {path}: {error.strerror}") from error


async def _cosigned(repository: Repository, digest: Digest) -> AsyncIterator[Signature]:
    manifest = await _attached(repository, digest)
    for layer in manifest.layers[: cosign.MAX_SIGNATURES] if manifest else ():
        signature = cosign.decode(layer.annotations.get(cosign.SIGNATURE, ""))
        if layer.media_type == cosign.PAYLOAD_TYPE and signature:
            payload = await repository.read_blob(layer, cosign.MAX_PAYLOAD)
            yield Signature(payload, signature)


async def _attached(repository: Repository, digest: Digest) -> Manifest | None:
    """The image cosign's signatures of a manifest are in."""
    try:
        return await repository.manifest(cosign.tag(digest))
    except NotFound:
        return None


async def _envelopes(repository: Repository, digest: Digest) -> AsyncIterator[bytes]:
    found = await repository.referrers(digest, notation.ARTIFACT_TYPE)
    for descriptor in found[: notation.MAX_SIGNATURES]:
        manifest = await repository.manifest(descriptor.digest)
        subject = manifest.subject
        for layer in manifest.layers[:1]:
            if layer.media_type == notation.ENVELOPE_TYPE and subject and subject.digest == digest:
                yield await repository.read_blob(layer, notation.MAX_ENVELOPE)


async def sign(signer: Signer, repository: Repository, image: Reference, digest: Digest) -> None:
    """Attach a cosign signature for the manifest ``digest``, beside those there are."""
    signature = await asyncio.to_thread(signer.sign, digest, image)
    manifest, config = cosign.attached(signature, await _attached(repository, digest))
    for data in (signature.payload, config):
        await _push(repository, data)
    await repository.put_manifest(manifest, cosign.tag(digest))


async def _push(repository: Repository, data: bytes) -> None:
    async def read(start: int, end: int) -> AsyncIterator[bytes]:
        yield data[start:end]

    digest = Digest.of(data)
    if await repository.has_blob(digest) is None:
        upload = Upload(
            base=repository.url("").rstrip("/"), digest=digest, size=len(data), read=read
        )
        await repository.session.converse(push(upload), repository.scope)
