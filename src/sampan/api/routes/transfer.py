"""Images on the move: pull, push, import, load, save. Bodies are streamed both ways."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import ClientError, ClientSession, InvalidURL, web

from sampan.api import body, query, reply
from sampan.api.call import Call
from sampan.api.router import Effect, Route
from sampan.engine.options import ImportOptions, RegistryAuth
from sampan.errors import InvalidParameter, Unreachable
from sampan.model.reference import Reference

_TAR = "application/x-tar"


async def create(call: Call) -> web.StreamResponse:
    """``POST /images/create``: pull (``fromImage``) or import (``fromSrc``)."""
    image, source = call.text("fromImage"), call.text("fromSrc")
    if image:
        return await _pull(call, image)
    if source:
        return await _import(call, source)
    raise InvalidParameter("fromImage or fromSrc is required")


async def _pull(call: Call, image: str) -> web.StreamResponse:
    tag = call.text("tag")
    reference = Reference.parse(image)
    messages = await call.engine.images.pull(
        image,
        tag=tag,
        platform=call.platform() or None,
        auth=call.registry_auth(),
        all_tags=not (tag or reference.tag or reference.digest),
    )
    return await reply.progress(call.request, messages)


async def _import(call: Call, source: str) -> web.StreamResponse:
    options = ImportOptions(
        repo=call.text("repo"),
        tag=call.text("tag"),
        message=call.text("message") or f"Imported from {source}",
        changes=tuple(call.texts("changes")),
        platform=call.platform(),
    )
    if source != "-":
        async with _download(source) as archive:
            return await _imported(call, archive, options)
    await call.accept_body()
    return await _imported(call, call.stream(), options)


async def _imported(
    call: Call, archive: AsyncIterator[bytes], options: ImportOptions
) -> web.StreamResponse:
    return await reply.progress(call.request, await call.engine.images.import_(archive, options))


@asynccontextmanager
async def _download(url: str) -> AsyncIterator[AsyncIterator[bytes]]:
    """The bytes at an address, for ``docker import URL``; a bad address is known before any."""
    if "://" not in url:
        url = f"http://{url}"
    if not url.startswith(("http://", "https://")):
        raise InvalidParameter(f"invalid fromSrc {url!r}: only http and https are supported")
    try:
        async with ClientSession(trust_env=True) as session, session.get(url) as response:
            if response.status != 200:
                raise InvalidParameter(f"failed to download {url}: status {response.status}")
            yield response.content.iter_any()
    except InvalidURL as error:
        raise InvalidParameter(f"invalid fromSrc {url!r}: not a URL") from error
    except ClientError as error:
        raise Unreachable(f"failed to download {url}: {error}") from error


async def push(call: Call) -> web.StreamResponse:
    """``POST /images/{name}/push``."""
    messages = await call.engine.images.push(
        call.name,
        tag=call.text("tag"),
        platform=call.platform() or None,
        auth=call.registry_auth() or await _legacy_auth(call),
    )
    return await reply.progress(call.request, messages)


async def _legacy_auth(call: Call) -> RegistryAuth | None:
    """Credentials in the body, where old clients put them."""
    raw = await call.raw_body(required=False)
    if not raw.strip():
        return None
    return query.credentials(body.decode_json(raw), "credentials")


async def load(call: Call) -> web.StreamResponse:
    """``POST /images/load``."""
    await call.accept_body()
    messages = await call.engine.images.load(
        call.stream(),
        quiet=call.flag("quiet", default=True),
        platform=call.platforms(),
    )
    return await reply.progress(call.request, messages)


async def save(call: Call) -> web.StreamResponse:
    """``GET /images/get``."""
    return await _save(call, call.texts("names"))


async def save_one(call: Call) -> web.StreamResponse:
    """``GET /images/{name}/get``."""
    return await _save(call, [call.name])


async def _save(call: Call, names: list[str]) -> web.StreamResponse:
    source = await call.engine.images.save(names, call.platforms(), call.texts("without"))
    return await reply.stream(call.request, source, _TAR)


ROUTES = (
    Route(method="POST", pattern="/images/create", handler=create, effect=Effect.STREAM),
    Route(method="POST", pattern="/images/load", handler=load, effect=Effect.STREAM),
    Route(method="GET", pattern="/images/get", handler=save, effect=Effect.READ),
    Route(method="GET", pattern="/images/{name:*}/get", handler=save_one, effect=Effect.READ),
    Route(method="POST", pattern="/images/{name:*}/push", handler=push, effect=Effect.STREAM),
)
