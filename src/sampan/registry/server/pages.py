"""Pages for people: repositories, tags, and what an image is made of. HTML from the server alone.

Every text that came from outside is escaped in one place (:func:`_page` takes only
:class:`Markup`), and the pages carry a policy that forbids scripts altogether.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from urllib.parse import quote

import msgspec
from aiohttp import web

from sampan.errors import InvalidParameter
from sampan.model.descriptor import Descriptor
from sampan.model.digest import Digest
from sampan.registry.manifest import Manifest
from sampan.registry.server import keys, routing
from sampan.registry.server.access import Identity
from sampan.registry.server.call import base_url
from sampan.registry.server.errors import Code, ProtocolError
from sampan.registry.server.services import Services

_PAGE = 100
_MAX_CONFIG = 8 << 20
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Type": "text/html; charset=utf-8",
}
_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #888; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.3rem; } h2 { font-size: 1.05rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .35rem .6rem .35rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
th { color: var(--soft); font-weight: normal; }
td.n, th.n { text-align: right; white-space: nowrap; }
code, td.c { font: 13px/1.5 ui-monospace, monospace; overflow-wrap: anywhere; }
a { color: inherit; } nav, footer { color: var(--soft); } .bar { background: #59f; height: .4rem;
  border-radius: .2rem; }
"""


class Markup(str):
    """Text that is HTML already."""


def _text(value: object) -> Markup:
    return value if isinstance(value, Markup) else Markup(escape(str(value)))


def _tag(name: str, *children: object, **attributes: str) -> Markup:
    written = "".join(
        f' {key.rstrip("_")}="{escape(value, quote=True)}"' for key, value in attributes.items()
    )
    return Markup(f"<{name}{written}>{''.join(map(_text, children))}</{name}>")


def _table(headings: Iterable[str], rows: Iterable[Iterable[object]]) -> Markup:
    """A table; columns whose heading ends in ``#`` are numbers, in ``@`` code."""
    names = list(headings)
    classes = [{"#": "n", "@": "c"}.get(name[-1:], "") for name in names]
    head = _tag(
        "tr",
        *(
            _tag("th", name.rstrip("#@"), class_=kind.replace("c", ""))
            for name, kind in zip(names, classes, strict=True)
        ),
    )
    body = (
        _tag(
            "tr", *(_tag("td", cell, class_=kind) for cell, kind in zip(row, classes, strict=True))
        )
        for row in rows
    )
    return _tag("table", head, *body)


def _page(title: str, trail: Markup, *content: Markup) -> web.Response:
    head = _tag(
        "head",
        Markup('<meta charset="utf-8"><meta name="viewport" content="width=device-width">'),
        _tag("title", f"{title} · sampan registry"),
        _tag("style", Markup(_STYLE)),
    )
    body = _tag("body", _tag("nav", trail), _tag("h1", title), *content)
    return web.Response(
        text=f"<!doctype html>{_tag('html', head, body, lang='en')}", headers=_HEADERS
    )


def size(count: int) -> str:
    """Bytes as people read them (decimal units, as docker images shows)."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.3g} {unit}"
        value /= 1000
    raise AssertionError("unreachable")


async def answer(request: web.BaseRequest, services: Services) -> web.StreamResponse:
    """The page at the request's path; raises 404, and 401 without sufficient rights."""
    identity = Identity()
    url = base_url(request)
    if not services.gate.open:
        identity = await services.gate.identify(request.headers.get("Authorization"), url)
    if request.path == "/":
        if services.gate.demands_login(identity) and not services.gate.rules.names_anybody:
            raise _login(services, url)
        return await _repositories(services, identity, request.query.get("last", ""))
    if not request.path.startswith("/r/"):
        raise ProtocolError(Code.UNSUPPORTED, "no such page", status=404)
    name, _, reference = request.path.removeprefix("/r/").partition(":")
    routing.repository(name)
    if not services.gate.rules.allows(identity, name, "pull"):
        raise _login(services, url)
    if reference:
        return await _image(services, name, reference, url)
    return await _tags(services, name, request.query.get("last", ""))


def _login(services: Services, url: str) -> ProtocolError:
    """A challenge browsers understand, whatever clients of the API are asked for."""
    error = services.gate.challenge(url)
    error.headers["WWW-Authenticate"] = 'Basic realm="sampan registry"'
    return error


def _home() -> Markup:
    return _tag("a", "Repositories", href="/")


async def _repositories(services: Services, identity: Identity, last: str) -> web.Response:
    rows: list[tuple[object, ...]] = []
    following = Markup("")
    async for name in services.store.repositories(last):
        if not services.gate.rules.allows(identity, name, "pull"):
            continue
        if len(rows) == _PAGE:
            following = _tag("a", "Next page", href=f"/?last={quote(last)}")
            break
        rows.append((_tag("a", name, href=f"/r/{name}"), size(await services.store.usage(name))))
        last = name
    content = _table(("Repository", "Size#"), rows) if rows else _tag("p", "No repositories yet.")
    return _page("Repositories", Markup("sampan registry"), content, following)


async def _tags(services: Services, repository: str, last: str) -> web.Response:
    if not await services.store.exists(repository):
        raise ProtocolError(Code.NAME_UNKNOWN, f"no repository {repository}")
    rows: list[tuple[object, ...]] = []
    following = Markup("")
    async for tag in services.store.tags(repository, last):
        if len(rows) == _PAGE:
            following = _tag("a", "Next page", href=f"/r/{repository}?last={quote(last)}")
            break
        digest = await services.store.tag(repository, tag)
        view = await _view(services, repository, digest) if digest else None
        rows.append(
            (
                _tag("a", tag, href=f"/r/{repository}:{tag}"),
                _kind(view),
                digest.short if digest else "",
                size(await _total(services, repository, view)),
            )
        )
        last = tag
    content = _table(("Tag", "Kind", "Digest@", "Size#"), rows) if rows else _tag("p", "No tags.")
    return _page(repository, _home(), content, following)


async def _view(services: Services, repository: str, digest: Digest) -> Manifest | None:
    try:
        return await services.store.view(repository, digest)
    except InvalidParameter:
        return None


def _kind(view: Manifest | None) -> str:
    if view is None:
        return "missing"
    if view.is_index:
        return f"index of {len(view.manifests)}"
    return "image" if view.config and ".config." in view.config.media_type else "artifact"


async def _total(services: Services, repository: str, view: Manifest | None) -> int:
    """Bytes a pull transfers: of an index, of all its manifests."""
    if view is None:
        return 0
    blobs = {item.digest: item.size for item in view.blobs}
    for item in view.manifests:
        child = await _view(services, repository, item.digest)
        blobs |= {blob.digest: blob.size for blob in child.blobs} if child else {}
    return len(view.raw) + sum(blobs.values())


async def _image(services: Services, repository: str, reference: str, url: str) -> web.Response:
    wanted = routing.reference(reference)
    digest = wanted if isinstance(wanted, Digest) else await services.store.tag(repository, wanted)
    view = digest and await _view(services, repository, digest)
    if not view:
        raise ProtocolError(Code.MANIFEST_UNKNOWN, f"{repository} has no {reference[:140]}")
    trail = Markup(f"{_home()} / {_tag('a', repository, href=f'/r/{repository}')}")
    host = url.partition("://")[2]
    name = f"{host}/{repository}" + (f"@{wanted}" if isinstance(wanted, Digest) else f":{wanted}")
    content = [
        _tag("p", _tag("code", f"docker pull {name}")),
        _tag("p", _tag("code", view.digest), f" · {view.media_type}"),
    ]
    if view.is_index:
        content.append(_tag("h2", "Platforms"))
        content.append(
            _table(
                ("Platform", "Digest@", "Size#"),
                (
                    (
                        item.platform or item.artifact_type or item.media_type,
                        _tag("a", item.digest, href=f"/r/{repository}:{item.digest}"),
                        size(item.size),
                    )
                    for item in view.manifests
                ),
            )
        )
    else:
        content += await _layers(services, repository, view)
    content += await _referrers(services, repository, view.digest)
    return _page(f"{repository}:{reference}"[:200], trail, *content)


class _History(msgspec.Struct):
    created_by: str = ""
    empty_layer: bool = False


class _ImageConfig(msgspec.Struct):
    os: str = ""
    architecture: str = ""
    created: str = ""
    history: list[_History] = []


async def _layers(services: Services, repository: str, view: Manifest) -> list[Markup]:
    config = await _config(services, view.config)
    commands = [item.created_by for item in config.history if not item.empty_layer]
    if len(commands) != len(view.layers):
        commands = [""] * len(view.layers)
    largest = max((layer.size for layer in view.layers), default=1) or 1
    facts = [("Created", config.created), ("Platform", f"{config.os}/{config.architecture}")]
    facts += sorted(view.annotations.items())
    rows = (
        (
            layer.digest.short,
            command,
            _tag("div", class_="bar", style=f"width:{max(100 * layer.size // largest, 1)}%"),
            size(layer.size),
        )
        for layer, command in zip(view.layers, commands, strict=True)
    )
    return [
        _table(("Fact", "Value"), [fact for fact in facts if fact[1].strip("/")]),
        _tag("h2", f"{len(view.layers)} layers, {size(sum(item.size for item in view.layers))}"),
        _table(("Digest@", "Made by@", "Share", "Size#"), rows),
    ]


async def _config(services: Services, config: Descriptor | None) -> _ImageConfig:
    """An image's configuration; an empty one when it is something else."""
    if config and config.size <= _MAX_CONFIG:
        raw = await services.store.driver.get(keys.blob(config.digest))
        try:
            return msgspec.json.decode(raw or b"{}", type=_ImageConfig)
        except (msgspec.DecodeError, RecursionError):
            pass  # an artifact's configuration can be anything
    return _ImageConfig()


async def _referrers(services: Services, repository: str, digest: Digest) -> list[Markup]:
    rows: list[tuple[object, ...]] = []
    async for _, item in services.store.referrers(repository, digest):
        target = str(item.get("digest", ""))
        link = _tag("a", target, href=f"/r/{repository}:{target}")
        rows.append((item.get("artifactType", ""), link))
        if len(rows) == _PAGE:
            break
    return [_tag("h2", "Referrers"), _table(("Type", "Digest@"), rows)] if rows else []
