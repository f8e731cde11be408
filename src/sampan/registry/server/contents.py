"""Manifests and blobs: get, head, put, delete (OCI distribution spec, end-2, 3, 7, 9, 10)."""

from __future__ import annotations

from aiohttp import web

from sampan.errors import InvalidParameter
from sampan.model.digest import Digest
from sampan.registry import manifest as manifests
from sampan.registry.manifest import Manifest
from sampan.registry.server import keys, routing
from sampan.registry.server.call import Call, blob_answer, content_headers
from sampan.registry.server.errors import Code, ProtocolError

_MAX_TAGS = 100


async def get_manifest(call: Call) -> web.StreamResponse:
    """GET and HEAD of a manifest by tag or digest."""
    store = call.services.store
    reference = routing.reference(call.route.argument)
    headers: dict[str, str] = {}
    if upstream := call.services.upstreams.of(call.repository):
        digest, headers = await upstream.manifest(call.repository, reference)
    elif isinstance(reference, str):
        tagged = await store.tag(call.repository, reference)
        if tagged is None:
            raise _unknown(call)
        digest = tagged
    else:
        digest = reference
    found = await store.manifest(call.repository, digest)
    if found is None:
        raise _unknown(call)
    headers |= content_headers(digest)
    headers["Content-Type"], raw = found
    if call.fresh(digest):
        return web.Response(status=304, headers=headers)
    if call.request.method == "GET":
        call.services.notify("pull", call, digest, media_type=found[0], size=len(raw))
    return web.Response(body=raw, headers=headers)


def _unknown(call: Call) -> ProtocolError:
    return ProtocolError(
        Code.MANIFEST_UNKNOWN, f"{call.repository} has no manifest {call.route.argument[:140]}"
    )


async def put_manifest(call: Call) -> web.StreamResponse:
    """PUT of a manifest under a tag, or under its digest and any number of ``tag`` parameters."""
    reference = routing.reference(call.route.argument)
    tags = call.request.query.getall("tag", [])
    if len(tags) > _MAX_TAGS:
        raise ProtocolError(Code.MANIFEST_INVALID, "too many tags", status=414)
    for tag in tags:
        if isinstance(reference, str) or not routing.is_tag(tag):
            raise ProtocolError(Code.MANIFEST_INVALID, f"invalid tag parameter: {tag[:80]!r}")
    manifest = await _received(call, reference)
    await call.services.quotas.check(call.repository, len(manifest.raw))
    await call.services.store.put_manifest(call.repository, manifest)
    for tag in [reference] if isinstance(reference, str) else tags:
        await call.services.store.set_tag(call.repository, tag, manifest.digest)
    headers = content_headers(manifest.digest)
    headers["Location"] = f"/v2/{call.repository}/manifests/{manifest.digest}"
    if tags:
        headers["OCI-Tag"] = ", ".join(tags)
    if manifest.subject:
        headers["OCI-Subject"] = str(manifest.subject.digest)
    call.services.notify(
        "push",
        call,
        manifest.digest,
        media_type=manifest.media_type,
        size=len(manifest.raw),
        tag=reference if isinstance(reference, str) else "",
    )
    return web.Response(status=201, headers=headers)


async def _received(call: Call, reference: str | Digest) -> Manifest:
    """The manifest in the request's body, checked against ``reference``."""
    limit = call.services.config.max_manifest_bytes
    raw = bytearray()
    async for piece in call.body():
        raw += piece
        if len(raw) > limit:
            raise ProtocolError(
                Code.MANIFEST_INVALID, f"manifest is larger than {limit} bytes", status=413
            )
    body = bytes(raw)
    digest = Digest.of(body, reference.algorithm if isinstance(reference, Digest) else "sha256")
    if isinstance(reference, Digest) and digest != reference:
        raise ProtocolError(Code.DIGEST_INVALID, f"the manifest has digest {digest}")
    try:
        return manifests.parse(body, call.request.headers.get("Content-Type", ""), digest)
    except InvalidParameter as error:
        raise ProtocolError(Code.MANIFEST_INVALID, error.message) from error


async def delete_manifest(call: Call) -> web.StreamResponse:
    """DELETE of a tag, or of a manifest with all its tags."""
    reference = routing.reference(call.route.argument)
    store = call.services.store
    if isinstance(reference, str):
        found = await store.delete_tag(call.repository, reference)
        call.services.notify("delete", call, None, tag=reference)
    else:
        found = await store.delete_manifest(call.repository, reference)
        call.services.notify("delete", call, reference)
    if not found:
        if not await store.exists(call.repository):
            raise ProtocolError(Code.NAME_UNKNOWN, f"no repository {call.repository}")
        raise _unknown(call)
    return web.Response(status=202)


async def get_blob(call: Call) -> web.StreamResponse:
    """GET and HEAD of a blob."""
    digest = call.digest()
    store = call.services.store
    if call.request.method == "HEAD" and not call.services.config.read_only:
        # The answer lets a client leave out the upload: the blob must then stay.
        blob = await store.claim_blob(call.repository, digest)
    else:
        blob = await store.blob(call.repository, digest)
    if blob is None and (upstream := call.services.upstreams.of(call.repository)):
        return await upstream.blob(call, digest)
    if blob is None and await store.driver.stat(keys.manifest(call.repository, digest)):
        blob = await store.driver.stat(keys.blob(digest))  # a manifest's bytes are a blob's too
    if blob is None:
        raise ProtocolError(
            Code.BLOB_UNKNOWN,
            f"{call.repository} has no blob {digest}",
            detail={"digest": str(digest)},
        )
    if call.request.method == "GET":
        call.services.notify("pull", call, digest, size=blob.size)
    return await blob_answer(call, blob, digest)


async def delete_blob(call: Call) -> web.StreamResponse:
    """DELETE of a blob from this repository; others keep it."""
    digest = call.digest()
    if not await call.services.store.unlink(call.repository, digest):
        raise ProtocolError(Code.BLOB_UNKNOWN, f"{call.repository} has no blob {digest}")
    call.services.notify("delete", call, digest)
    return web.Response(status=202)
