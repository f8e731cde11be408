"""The table of routes: method and path to handler, as dockerd's routers match them.

A pattern is a path whose ``{name}`` parts match one segment and whose ``{name:*}`` parts match any
text, slashes included (names of images). The first matching row wins, so a table lists
its literal paths first.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from sampan.api.version import MINIMUM, ApiVersion

if TYPE_CHECKING:
    from aiohttp.web import StreamResponse

    from sampan.api.call import Call

    Handler = Callable[[Call], Awaitable[StreamResponse]]

_VERSIONED = re.compile(r"/v([0-9.]+)(/.*)", re.DOTALL)
_SEGMENT = "[^/]+"
#: a container's name may be what another calls it by a link: ``name/alias``
_CONTAINER = "[^/]+(?:/[^/]+)?"
_PART = re.compile(r"\{(\w+)(:\*)?\}")


class Effect(Enum):
    """What a request may change, which decides who may make it and whether it may be cut short.

    ``READ`` changes nothing. ``WRITE`` runs to its end even when its client goes away. ``STREAM``
    is a long conversation that changes something, given up when the client goes away.
    """

    READ = "read"
    WRITE = "write"
    STREAM = "stream"


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One row: what a client writes and who answers it."""

    method: str
    pattern: str
    handler: Handler
    effect: Effect
    since: ApiVersion = MINIMUM


@dataclass(frozen=True, slots=True)
class Match:
    """A route found for a request, with the values of its path's parts."""

    route: Route
    parts: dict[str, str]


class Router:
    """An index of routes by first segment; immutable once built."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._index: dict[str, list[tuple[re.Pattern[str], dict[str, Route]]]] = {}
        known: dict[str, dict[str, Route]] = {}
        for route in routes:
            methods = known.get(route.pattern)
            if methods is None:
                methods = known[route.pattern] = {}
                self._index.setdefault(_first(route.pattern), []).append(
                    (_compile(route.pattern), methods)
                )
            methods[route.method] = route

    def match(self, method: str, path: str, version: ApiVersion) -> Match | set[str]:
        """The route of a request, or the methods its path has instead (none: no such path)."""
        allowed: set[str] = set()
        for pattern, methods in self._index.get(_first(path), ()):
            found = pattern.fullmatch(path)
            if found is None:
                continue
            route = methods.get(method)
            if route is not None and version >= route.since:
                return Match(route, found.groupdict())
            # What reads as a name with slashes only for want of a better row is no known path.
            if not any("/" in part for part in found.groups()):
                allowed.update(name for name, row in methods.items() if version >= row.since)
        return allowed


def split_version(path: str) -> tuple[str | None, str]:
    """``/v1.41/info`` as ``("1.41", "/info")``; a path without version as ``(None, path)``."""
    found = _VERSIONED.fullmatch(path)
    return (found[1], found[2]) if found else (None, path)


def _first(path: str) -> str:
    return path[1:].partition("/")[0]


def _compile(pattern: str) -> re.Pattern[str]:
    text = ""
    at = 0
    one = _CONTAINER if pattern.startswith("/containers/") else _SEGMENT
    for part in _PART.finditer(pattern):
        text += re.escape(pattern[at : part.start()])
        text += f"(?P<{part[1]}>{'.+' if part[2] else one})"
        at = part.end()
    return re.compile(text + re.escape(pattern[at:]), re.DOTALL)
