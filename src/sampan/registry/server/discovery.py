"""Lists of tags, referrers, repositories, extensions (OCI spec, "Content Discovery")."""

from __future__ import annotations

from urllib.parse import quote

import msgspec
from aiohttp import web

from sampan.model.descriptor import OCI_INDEX
from sampan.registry import manifest as manifests
from sampan.registry.server.call import Call, link
from sampan.registry.server.errors import Code, ProtocolError

MAX_PAGE = 10_000
#: Referrers are themselves an index, which clients read up to four megabytes of.
_MAX_REFERRERS = 1_000


async def list_tags(call: Call) -> web.StreamResponse:
    """GET of a repository's tags, whole or in pages."""
    services = call.services
    if upstream := services.upstreams.of(call.repository):
        return web.json_response(
            {"name": call.repository, "tags": await upstream.tags(call.repository)}
        )
    count = call.page_size(MAX_PAGE)
    last = call.query("last")
    tags: list[str] = []
    more = False
    if count != 0:
        async for tag in services.store.tags(call.repository, last):
            if len(tags) == count:
                more = True
                break
            tags.append(tag)
    if not tags and not await services.store.exists(call.repository):
        raise ProtocolError(Code.NAME_UNKNOWN, f"no repository {call.repository}")
    headers = {}
    if more:
        path = f"/v2/{call.repository}/tags/list"
        headers = link(path, {"n": str(count), "last": tags[-1]})
    return _json({"name": call.repository, "tags": tags}, headers)


async def list_referrers(call: Call) -> web.StreamResponse:
    """GET of the manifests that have a digest as their subject."""
    wanted = call.query("artifactType")
    found: list[dict[str, object]] = []
    headers = {"OCI-Filters-Applied": "artifactType"} if wanted else {}
    name = ""
    async for entry, descriptor in call.services.store.referrers(
        call.repository, call.digest(), call.query("last")
    ):
        if wanted and descriptor.get("artifactType") != wanted:
            continue
        if len(found) == _MAX_REFERRERS:
            parameters = {"last": name} | ({"artifactType": wanted} if wanted else {})
            path = f"/v2/{call.repository}/referrers/{quote(call.route.argument)}"
            headers |= link(path, parameters)
            break
        found.append(descriptor)
        name = entry
    headers["Content-Type"] = OCI_INDEX
    return web.Response(body=manifests.encode_index(found), headers=headers)


async def list_repositories(call: Call) -> web.StreamResponse:
    """GET of the repositories the caller may pull from, in pages."""
    services = call.services
    count = call.page_size(MAX_PAGE)
    names: list[str] = []
    more = False
    if count != 0:
        async for name in services.store.repositories(call.query("last")):
            if call.identity.grants is None and not services.gate.rules.allows(
                call.identity, name, "pull"
            ):
                continue
            if len(names) == count:
                more = True
                break
            names.append(name)
    headers = link("/v2/_catalog", {"n": str(count), "last": names[-1]}) if more else {}
    return _json({"repositories": names}, headers)


async def list_extensions(call: Call) -> web.StreamResponse:
    """GET of the extensions this server has: the discovery of extensions, and no other."""
    prefix = f"/v2/{call.repository}/" if call.repository else "/v2/"
    extension = {
        "name": "_oci",
        "description": "Lists the extensions of this registry",
        "url": "https://github.com/opencontainers/distribution-spec/tree/main/extensions",
        "endpoints": [f"{prefix}_oci/ext/discover"],
    }
    return _json({"extensions": [extension]}, {})


def _json(document: object, headers: dict[str, str]) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(document), headers=headers | {"Content-Type": "application/json"}
    )
