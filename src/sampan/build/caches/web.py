"""HTTP for cache backends: bounded waits, a few attempts, bodies as streams (blocking)."""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from email.message import Message

from sampan.errors import Unavailable

TIMEOUT = 60.0
_PIECE = 1 << 20
_PAUSES = (0.2, 1.0, 3.0)
_AGAIN = frozenset((408, 429, 500, 502, 503, 504))


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer: its status, its headers in lower case, its (small) body."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""


class _Same(urllib.request.HTTPRedirectHandler):
    """Redirects are answers here: credentials must not follow them."""

    def redirect_request(self, *_: object) -> None:
        return None


_OPENER = urllib.request.build_opener(_Same)


def send(
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: Callable[[], Iterator[bytes]] | bytes | None = None,
    *,
    attempts: int = 3,
    limit: int = 64 << 20,
) -> Reply:
    """The answer to a request, any status; one that failed on the way is tried again.

    Raises Unavailable when nothing answers.
    """
    for attempt in range(attempts):
        data = body() if callable(body) else body
        request = urllib.request.Request(url, data=data, headers=dict(headers), method=method)
        try:
            with _OPENER.open(request, timeout=TIMEOUT) as answer:
                return Reply(
                    status=answer.status, headers=_lower(answer.headers), body=answer.read(limit)
                )
        except urllib.error.HTTPError as error:
            with error:
                reply = Reply(
                    status=error.code, headers=_lower(error.headers), body=error.read(1 << 20)
                )
            if error.code not in _AGAIN or attempt + 1 == attempts:
                return reply
        except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
            if attempt + 1 == attempts:
                raise Unavailable(f"the cache at {_plain(url)} does not answer: {error}") from error
        time.sleep(_PAUSES[min(attempt, len(_PAUSES) - 1)])
    raise Unavailable(f"the cache at {_plain(url)} does not answer")


def read(url: str, headers: Mapping[str, str]) -> Iterator[bytes]:
    """A body in pieces. Raises Unavailable for any status but 200."""
    request = urllib.request.Request(url, headers=dict(headers))
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            while piece := answer.read(_PIECE):
                yield piece
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        raise Unavailable(f"fetching from the cache at {_plain(url)} failed: {error}") from error


def _lower(headers: Message) -> dict[str, str]:
    return {name.lower(): str(value) for name, value in headers.items()}


def _plain(url: str) -> str:
    """The URL without what may be secret in it (signatures are in the query)."""
    return url.partition("?")[0]
