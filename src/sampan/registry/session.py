"""Requests over the network: TLS per host, authentication, redirects, retries, limits.

One :class:`Session` talks to one registry host for one account. It performs the conversations of
:mod:`auth` and :mod:`upload`. Safety is here: ``Authorization`` goes to the host it is for and to
no other; redirects from HTTPS to HTTP are refused; what is read into memory is bounded.
"""

from __future__ import annotations

import asyncio
import io
import random
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from typing import TypeVar
from urllib.parse import urljoin, urlsplit

import aiohttp
from yarl import URL

from sampan.errors import InvalidParameter, Unreachable
from sampan.registry.auth import Authenticator
from sampan.registry.http import BROKEN, Conversation, Reply, Request
from sampan.registry.tls import Certificates, Proxies

_T = TypeVar("_T")
#: Answers read whole (errors, tokens, lists) may be this long, in bytes.
MAX_BODY = 8 << 20
#: What sending and receiving raises.
FAILURES = (aiohttp.ClientError, TimeoutError, ConnectionError)
_MAX_REDIRECTS = 10
_MAX_WARNING = 512
RETRIABLE = frozenset({408, 425, 429, 500, 502, 503, 504})
_MAX_WAIT = 60.0
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How often and how long to try: the pause doubles from ``pause`` seconds, with jitter.

    ``sleep`` and ``jitter`` (a factor) are parameters for tests.
    """

    attempts: int = 5
    pause: float = 0.5
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    jitter: Callable[[], float] = field(default=lambda: random.uniform(0.5, 1.0))

    def delay(self, attempt: int, retry_after: float | None = None) -> float:
        """Seconds before attempt number ``attempt`` (from 1), as the server asked if it did."""
        if retry_after is not None:
            return min(max(retry_after, 0.0), _MAX_WAIT)
        return min(self.pause * 2.0 ** (attempt - 1), _MAX_WAIT) * self.jitter()


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds a ``Retry-After`` header (RFC 9110, 10.2.3) asks to wait; ``now`` since the epoch."""
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit() and len(value) < 10:
        return float(value)
    try:
        return parsedate_to_datetime(value).timestamp() - now if value else None
    except ValueError:
        return None


class Answer:
    """An answer whose body has not been read. Header names are in lower case.

    ``url`` is the one that answered, after redirects.
    """

    def __init__(
        self, status: int, url: str, headers: Mapping[str, str], content: AsyncIterator[bytes]
    ) -> None:
        self.status = status
        self.url = url
        self.headers = headers
        self.content = content
        self.challenges: tuple[str, ...] = ()

    async def read(self, limit: int = MAX_BODY) -> bytes:
        """The body; raises :class:`InvalidParameter` when it is longer than ``limit`` bytes."""
        body = bytearray()
        async for piece in self.content:
            body += piece
            if len(body) > limit:
                raise InvalidParameter(f"the registry's answer is larger than {limit} bytes")
        return bytes(body)

    async def reply(self) -> Reply:
        """This with its body read."""
        return Reply(
            status=self.status,
            url=self.url,
            headers=self.headers,
            challenges=self.challenges,
            body=await self.read(),
        )


class Session:
    """Connections to ``host`` by ``scheme``; an async context manager.

    ``offline`` asks for refresh tokens; ``warn`` is told what ``Warning`` headers say. Tokens and
    blobs may come from other hosts, which are verified as what they are.
    """

    def __init__(
        self,
        scheme: str,
        host: str,
        *,
        authenticator: Authenticator,
        certificates: Certificates,
        proxies: Proxies,
        insecure: bool,
        patience: Patience,
        user_agent: str,
        offline: bool = False,
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.scheme = scheme
        self.host = host
        self.authenticator = authenticator
        self._proxies = proxies
        self._certificates = certificates
        self._context = certificates.context(host, insecure=insecure)
        self._offline = offline
        self.patience = patience
        self._warn = warn
        self._authenticating = asyncio.Lock()
        self._answered = False
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            auto_decompress=False,
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": user_agent, "Accept-Encoding": "identity"},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=120),
            read_bufsize=1 << 20,
        )

    async def __aenter__(self) -> Session:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self._http.close()

    @property
    def base(self) -> str:
        """The URL of the host."""
        return f"{self.scheme}://{self.host}"

    def passes(self, error: BaseException) -> bool:
        """Whether a failure may be gone at the next try.

        Not a certificate or an address that is wrong. A refused connection is final at first, so
        that a wrong name is told at once; of a host that has answered it means a restart.
        """
        if isinstance(error, aiohttp.ClientSSLError | aiohttp.InvalidURL):
            return False
        return self._answered or not isinstance(error, aiohttp.ClientConnectorError)

    @asynccontextmanager
    async def stream(self, request: Request, scope: str) -> AsyncIterator[Answer]:
        """One exchange, authenticated when asked to, without retry; the body is not read.

        A URL of another host (a foreign layer's, a lookaside's, where an upload is to go on) is
        asked as a stranger, and what that host demands is not ours to answer.
        """
        if _place(request.url) != _place(self.base):
            async with self._exchange(request) as answer:
                yield answer
            return
        header = self.authenticator.header(scope)
        async with self._exchange(_authorized(request, header)) as answer:
            refused = await answer.reply() if answer.status == 401 else None
            if refused is None:
                yield answer
                return
        header = await self._authenticate(refused, scope, header)
        if not header:
            yield _answered(refused)
            return
        async with self._exchange(_authorized(request, header)) as answer:
            yield answer

    async def _authenticate(self, refused: Reply, scope: str, used: str) -> str:
        """The header to answer a 401 with; empty when there is none. One at a time."""
        async with self._authenticating:
            known = self.authenticator.header(scope)
            if known and known != used:
                return known  # another request got it meanwhile
            conversation = self.authenticator.answer(refused, scope, offline=self._offline)
            try:
                request = next(conversation)
                while True:
                    async with self._exchange(request) as answer:
                        reply = await answer.reply()
                    request = conversation.send(reply)
            except StopIteration as stop:
                header: str = stop.value
                return header
            finally:
                conversation.close()

    async def send(self, request: Request, scope: str) -> Reply:
        """An authenticated exchange, repeated while that makes sense; the body is read.

        Raises :class:`Unreachable` when the host cannot be reached.
        """

        async def once() -> Reply:
            async with self.stream(request, scope) as answer:
                return await answer.reply()

        return await self.persist(once)

    async def persist(self, action: Callable[[], Awaitable[Reply]]) -> Reply:
        """The reply of ``action``, repeated on failures that pass, and on 429 as told to."""
        attempt = 1
        while True:
            wait: float | None = None
            try:
                reply = await action()
            except FAILURES as error:
                if attempt >= self.patience.attempts or not self.passes(error):
                    raise unreachable(self.host, error) from error
            else:
                if reply.status not in RETRIABLE or attempt >= self.patience.attempts:
                    return reply
                wait = retry_after(reply.headers, time.time())
            await self.patience.sleep(self.patience.delay(attempt, wait))
            attempt += 1

    async def converse(self, conversation: Conversation[_T], scope: str) -> _T:
        """Perform a conversation to its end; its result."""
        try:
            request = next(conversation)
            while True:
                if callable(request.body):
                    reply = await self._send_stream(request, scope)
                else:
                    reply = await self.send(request, scope)
                request = conversation.send(reply)
        except StopIteration as stop:
            result: _T = stop.value
            return result
        finally:
            conversation.close()

    async def _send_stream(self, request: Request, scope: str) -> Reply:
        """One exchange with a long body: what to do after a failure is the conversation's matter.

        A failure that may pass is a reply of status 0.
        """
        try:
            async with self.stream(request, scope) as answer:
                return await answer.reply()
        except FAILURES as error:
            if not self.passes(error):
                raise unreachable(self.host, error) from error
            return Reply(status=BROKEN)

    @asynccontextmanager
    async def _exchange(self, request: Request) -> AsyncIterator[Answer]:
        """One exchange, redirects followed."""
        origin = request.url
        for _ in range(_MAX_REDIRECTS):
            async with self._http.request(
                request.method,
                URL(request.url, encoded=True),
                headers=_headers(request),
                data=_body(request),
                allow_redirects=False,
                proxy=self._proxies.of(request.url) or None,
                ssl=self._tls(request.url),
            ) as response:
                self._answered = True
                for warning in response.headers.getall("Warning", ()):
                    self._warn(_warning(warning))
                location = response.headers.get("Location")
                if response.status not in _REDIRECTS or not location:
                    answer = Answer(
                        response.status,
                        request.url,
                        {name.lower(): value for name, value in response.headers.items()},
                        response.content.iter_any(),
                    )
                    if _place(request.url) == _place(origin):
                        # What another host asks for is not ours to answer.
                        answer.challenges = tuple(response.headers.getall("WWW-Authenticate", ()))
                    yield answer
                    return
            request = _redirected(request, response.status, location)
        raise InvalidParameter(f"{self.host} redirects too many times")

    def _tls(self, url: str) -> ssl.SSLContext | bool:
        """The verification of a URL's host: only the registry itself can be insecure."""
        if _place(url) == _place(f"https://{self.host}"):
            return self._context
        return self._certificates.context(urlsplit(url).netloc, insecure=False)


def _authorized(request: Request, header: str) -> Request:
    return request.with_header("Authorization", header) if header else request


def _answered(reply: Reply) -> Answer:
    """A reply as an answer."""

    async def content() -> AsyncIterator[bytes]:
        yield reply.body

    answer = Answer(reply.status, reply.url, reply.headers, content())
    answer.challenges = reply.challenges
    return answer


def _headers(request: Request) -> dict[str, str]:
    headers = dict(request.headers)
    if callable(request.body) and request.length is not None:
        headers["Content-Length"] = str(request.length)
    return headers


def _body(request: Request) -> AsyncIterator[bytes] | io.BytesIO | None:
    """What aiohttp sends; a file object, since it would copy long bytes in one go."""
    if callable(request.body):
        return request.body()
    return io.BytesIO(request.body) if request.body else None


def _place(url: str) -> tuple[str, str]:
    """What credentials are bound to: scheme, host and port."""
    parts = urlsplit(url)
    default = {"http": ":80", "https": ":443"}.get(parts.scheme, "")
    return parts.scheme, parts.netloc.lower().removesuffix(default)


def _redirected(request: Request, status: int, location: str) -> Request:
    """The request a redirect leads to (RFC 9110, 15.4; OCI distribution spec, "API").

    Raises :class:`InvalidParameter` for one from HTTPS to HTTP, or to no HTTP at all.
    """
    url = urljoin(request.url, location)
    before, after = urlsplit(request.url), urlsplit(url)
    if after.scheme not in ("http", "https") or not after.netloc or after.username:
        raise InvalidParameter(f"{before.netloc} redirects to an address that is not allowed")
    if before.scheme == "https" and after.scheme == "http":
        raise InvalidParameter(f"{before.netloc} redirects from https to http")
    if _place(url) != _place(request.url):
        kept = {
            name: value
            for name, value in request.headers.items()
            if name.lower() not in ("authorization", "cookie")
        }
        request = replace(request, headers=kept)
    if status == 303 and request.method != "HEAD":
        return replace(request, url=url, method="GET", body=None, length=None)
    return replace(request, url=url)


def _warning(header: str) -> str:
    """The text of a ``Warning: 299 - "text"`` header, printable and bounded."""
    text = header.partition('"')[2].rpartition('"')[0] or header
    return "".join(char if char.isprintable() else " " for char in text)[:_MAX_WARNING]


def unreachable(host: str, error: BaseException) -> Unreachable:
    """The error for a host that cannot be talked to; it names the reason in one line."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return UntrustedCertificate(
            f"{host}: the certificate cannot be trusted: {error.certificate_error}"
        )
    if isinstance(error, aiohttp.ClientSSLError):
        return UntrustedCertificate(f"{host}: TLS failed: {error}")
    if isinstance(error, aiohttp.ClientConnectorError):
        return ConnectionRefused(f"cannot connect to {host}: {error.os_error}")
    return Unreachable(f"{host} does not answer: {type(error).__name__} {error}".rstrip())


class UntrustedCertificate(Unreachable):
    """TLS with a host failed; nothing was sent."""


class ConnectionRefused(Unreachable):
    """Nobody listens, or the name is unknown."""
