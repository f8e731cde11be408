"""Requests and answers of registry conversations as values, and what an answer means.

Conversations (:mod:`auth`, :mod:`upload`) are generators that yield a :class:`Request` and are
sent a :class:`Reply`; :mod:`session` performs them. They can be tested without a network.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

import msgspec

from sampan.errors import Forbidden, InvalidParameter, NotFound, SampanError, Unauthorized
from sampan.errors import Unreachable as _Unreachable

_T = TypeVar("_T")
#: A body that can be sent again: makes a new stream of the same bytes.
Body = bytes | Callable[[], AsyncIterator[bytes]]
#: A conversation: yields requests, is sent replies, returns its result.
Conversation = Generator["Request", "Reply", _T]
#: The status of an exchange with a long body that broke before an answer came.
BROKEN = 0
_MAX_MESSAGE = 500


class TooManyRequests(_Unreachable):
    """The registry limits the rate of requests (429); it said so again after all retries."""

    http_status = 429


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """An HTTP request. ``url`` is absolute; ``length`` is that of a streamed ``body``."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Body | None = None
    length: int | None = None

    def with_header(self, name: str, value: str) -> Request:
        """This request with another header."""
        return replace(self, headers={**self.headers, name: value})


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An HTTP answer whose body (bounded) was read. Header names are in lower case.

    ``url`` is the one that answered, after redirects; ``challenges`` are the WWW-Authenticate
    headers.
    """

    status: int
    url: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    challenges: tuple[str, ...] = ()
    body: bytes = b""


class _Item(msgspec.Struct):
    code: str = ""
    message: str | None = ""
    detail: msgspec.Raw = msgspec.Raw()


class _Errors(msgspec.Struct):
    errors: list[_Item] | None = None
    details: str | None = None
    message: str | None = None


def explanation(reply: Reply) -> str:
    """What the registry says went wrong, as ``code: message`` in one bounded, printable line."""
    try:
        document = msgspec.json.decode(reply.body, type=_Errors)
    except (msgspec.DecodeError, RecursionError):
        document = _Errors()
    said = [
        f"{item.code.lower().replace('_', ' ').replace('toomanyrequests', 'too many requests')}"
        f": {item.message or ''}".rstrip(": ")
        for item in document.errors or ()
    ]
    text = "; ".join(said) or document.details or document.message or f"status {reply.status}"
    printable = "".join(char if char.isprintable() else " " for char in text)
    return printable[:_MAX_MESSAGE]


def failure(reply: Reply, what: str) -> SampanError:
    """The error a refusing answer becomes; ``what`` names what was asked for."""
    said = explanation(reply)
    kinds: Mapping[int, type[SampanError]] = {
        400: InvalidParameter,
        401: Unauthorized,
        403: Forbidden,
        404: NotFound,
        429: TooManyRequests,
    }
    kind = kinds.get(reply.status)
    if kind is None:
        kind = _Unreachable if reply.status >= 500 else InvalidParameter
    error = kind(f"{what}: {said}")
    error.quoted = said
    return error
