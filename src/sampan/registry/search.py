"""Searching a registry by a word: Docker Hub's version 1 API, or a look through the catalog.

Only Docker's index has a search of its own (``/v1/search``). A registry that lists its
repositories (``_catalog``) is searched by their names, which is what people mean by it there.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlencode

import msgspec

from sampan.errors import InvalidParameter
from sampan.registry.http import Request, failure
from sampan.registry.repository import Repository

#: The host of Docker Hub's search.
HUB_INDEX = "index.docker.io"
_MAX_CATALOG = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A repository that matches."""

    name: str
    description: str = ""
    stars: int = 0
    official: bool = False


class _Result(msgspec.Struct):
    name: str = ""
    description: str | None = None
    star_count: int = 0
    is_official: bool = False


class _Results(msgspec.Struct):
    results: list[_Result] = []


async def search(repository: Repository, term: str, limit: int) -> list[Found]:
    """At most ``limit`` repositories of the registry ``repository`` is at that match ``term``.

    Raises what the registry's refusal means.
    """
    query = urlencode({"q": term, "n": str(limit)})
    url = f"{repository.session.base}/v1/search?{query}"
    reply = await repository.session.send(Request(method="GET", url=url), "")
    if reply.status in (404, 405, 501):
        return await _in_catalog(repository, term, limit)
    if reply.status != 200:
        raise failure(reply, f"searching for {term!r}")
    try:
        results = msgspec.json.decode(reply.body, type=_Results).results
    except msgspec.DecodeError as error:
        raise InvalidParameter("the registry answered no list of results") from error
    return [
        Found(
            name=item.name,
            description=item.description or "",
            stars=item.star_count,
            official=item.is_official,
        )
        for item in results[:limit]
    ]


async def _in_catalog(repository: Repository, term: str, limit: int) -> list[Found]:
    found: list[Found] = []
    seen = 0
    async for name in repository.repositories():
        seen += 1
        if term.lower() in name:
            found.append(Found(name=name))
        if len(found) == limit or seen == _MAX_CATALOG:
            break
    return found
