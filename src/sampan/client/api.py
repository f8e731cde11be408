"""The Docker Engine API over one endpoint: version negotiation, JSON in and out, errors, streams.

This is the untyped layer under both the command line and :mod:`sampan.client.remote`. Paths are
those of the API without the version prefix, query values as :func:`encode_query` takes them.
"""

from __future__ import annotations

import json

from sampan.client.failure import ConnectionFailed, from_status
from sampan.client.http import Connection, Response, Stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import TypeAlias

    from sampan.client.document import Document, Json
    from sampan.client.endpoint import Endpoint

    QueryValue: TypeAlias = str | int | bool | list[str] | dict[str, list[str]] | None
    Query: TypeAlias = Mapping[str, QueryValue]
    Body: TypeAlias = "Document | bytes | Iterable[bytes] | None"

#: The newest API version this client speaks, and the oldest it will.
API_VERSION = "1.55"
MINIMUM_API_VERSION = "1.24"
_SAFE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


class ApiClient:
    """A client of one daemon. Not thread-safe; open one per thread."""

    def __init__(
        self,
        endpoint: Endpoint,
        environment: Mapping[str, str],
        *,
        headers: Mapping[str, str] | None = None,
        api_version: str = "",
        on_unreachable: Callable[[], bool] | None = None,
    ) -> None:
        """Nothing is sent yet.

        ``api_version`` pins the version (``DOCKER_API_VERSION``), else it is negotiated.
        ``on_unreachable`` is called once when nothing answers; True means "try again".
        """
        self.endpoint = endpoint
        self._environment = environment
        self._headers = dict(headers or {})
        self._pinned = bool(api_version)
        self._version = api_version
        self._on_unreachable = on_unreachable
        self._idle: Connection | None = None
        self._busy: Response | None = None
        self.server: dict[str, str] = {}

    @property
    def version(self) -> str:
        """The API version in use; negotiates with the daemon the first time."""
        if not self._version:
            self.ping()
        return self._version

    def ping(self) -> dict[str, str]:
        """The daemon's ping headers (lower-case names); settles the API version."""
        response = self._send("HEAD", "/_ping", {}, None)
        if response.status == 404 or response.status == 405:
            response = self._send("GET", "/_ping", {}, None)
        body = response.read()
        if response.status >= 400:
            raise from_status(response.status, _message(response, body))
        self.server = response.headers
        if not self._pinned:
            offered = response.headers.get("api-version", "") or MINIMUM_API_VERSION
            self._version = min(offered, API_VERSION, key=version_key)
        return response.headers

    def at_least(self, version: str) -> bool:
        """Whether the version in use is ``version`` or newer."""
        return version_key(self.version) >= version_key(version)

    def open(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        body: Body = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """The response, its body unread; an error status is raised as :class:`DaemonError`.

        Only one response may be open at a time: opening the next gives the former up.
        """
        target = f"/v{self.version}{encode_path(path)}{encode_query(query or {})}"
        fields = dict(headers or {})
        payload: bytes | Iterable[bytes] | None
        if isinstance(body, dict):
            payload = json.dumps(body, separators=(",", ":")).encode()
            fields.setdefault("Content-Type", "application/json")
        else:
            payload = body
        response = self._send(method, target, fields, payload)
        if response.status >= 400 or response.status == 304:
            raise from_status(response.status, _message(response, response.read()))
        return response

    def begin(self, method: str, path: str, query: Query | None = None) -> Pending:
        """Send a request without waiting for the answer, on a connection of its own or the idle
        one; nothing else may be asked of this client before :meth:`Pending.finish`.
        """
        target = f"/v{self.version}{encode_path(path)}{encode_query(query or {})}"
        connection = self._reusable()
        if connection is None:
            connection = self._connection()
            self._idle = connection
        self._busy = None
        connection.send(method, target, self._headers)
        return Pending(connection, method)

    def call(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        body: Body = None,
        headers: Mapping[str, str] | None = None,
    ) -> Json:
        """The JSON answer, or None when the answer is empty."""
        content = self.open(method, path, query, body, headers).read()
        if not content.strip():
            return None
        document: Json = json.loads(content)
        return document

    def get(self, path: str, query: Query | None = None) -> Json:
        """GET, JSON answer."""
        return self.call("GET", path, query)

    def post(self, path: str, query: Query | None = None, body: Body = None) -> Json:
        """POST, JSON answer."""
        return self.call("POST", path, query, body)

    def delete(self, path: str, query: Query | None = None) -> Json:
        """DELETE, JSON answer."""
        return self.call("DELETE", path, query)

    def stream(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        body: Body = None,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[Document]:
        """The JSON objects of a streamed answer as they arrive; the request is sent at once."""
        response = self.open(method, path, query, body, headers)
        return json_objects(response)

    def hijack(
        self, path: str, query: Query | None = None, body: Body = None, *, exact: bool = False
    ) -> Stream:
        """POST asking for a raw stream (attach, exec); the connection is the caller's.

        ``exact``: nothing of the stream is read ahead, its socket can be used directly.
        """
        headers = {"Connection": "Upgrade", "Upgrade": "tcp"}
        if exact:
            self.version  # noqa: B018 (negotiated now, on a connection of its own)
            self.close()
            self._idle = self._connection(exact=True)
        response = self.open("POST", path, query, body, headers)
        self._idle = self._busy = None
        return response.take_over()

    def sibling(self) -> ApiClient:
        """Another client of the same daemon and version, with a connection of its own."""
        return ApiClient(
            self.endpoint,
            self._environment,
            headers=self._headers,
            api_version=self.version,
        )

    def close(self) -> None:
        """Close the connection; idempotent."""
        if self._idle is not None:
            self._idle.close()
        self._idle = self._busy = None

    def __enter__(self) -> ApiClient:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def _send(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes | Iterable[bytes] | None,
    ) -> Response:
        reused = self._reusable()
        fields = {**self._headers, **headers}
        if reused is not None:
            try:
                self._busy = reused.request(method, target, fields, body)
                return self._busy
            except ConnectionFailed:
                # The daemon closed the idle connection. A streamed body is spent, and only
                # requests that change nothing may be sent twice (RFC 9110, section 9.2.2).
                if method not in ("GET", "HEAD"):
                    raise
        self._idle = self._connection()
        self._busy = self._idle.request(method, target, fields, body)
        return self._busy

    def _reusable(self) -> Connection | None:
        if self._busy is not None and not self._busy.done:
            self._busy.close()
        return self._idle if self._idle is not None and not self._idle.closed else None

    def _connection(self, *, exact: bool = False) -> Connection:
        endpoint = self.endpoint
        dialled = self._dial().socket
        return Connection(dialled, endpoint.host_header, exact=exact, silence=endpoint.silence)

    def _dial(self) -> Stream:
        try:
            return Stream(self.endpoint.dial(self._environment), b"")
        except ConnectionFailed:
            starter, self._on_unreachable = self._on_unreachable, None
            if starter is None or not starter():
                raise
            return Stream(self.endpoint.dial(self._environment), b"")

    def dial(self) -> Stream:
        """A raw connection to the daemon (``system dial-stdio``)."""
        return self._dial()


class Pending:
    """A request on its way."""

    def __init__(self, connection: Connection, method: str) -> None:
        self._connection = connection
        self._method = method

    def finish(self) -> bytes:
        """The answer's body. Raises :class:`DaemonError`, :class:`ConnectionFailed`."""
        response = self._connection.receive(self._method)
        body = response.read()
        if response.status >= 400:
            raise from_status(response.status, _message(response, body))
        return body


def json_objects(response: Response) -> Iterator[Document]:
    """The objects of a stream of concatenated JSON values, whatever separates them."""
    decoder = json.JSONDecoder()
    pending = ""
    undecoded = b""
    for piece in response:
        undecoded += piece
        try:
            pending, undecoded = pending + undecoded.decode(), b""
        except UnicodeDecodeError:
            continue  # a character is split between two pieces
        pending = pending.lstrip()
        while pending:
            try:
                value, end = decoder.raw_decode(pending)
            except ValueError:
                break
            pending = pending[end:].lstrip()
            if isinstance(value, dict):
                yield value


def version_key(version: str) -> tuple[int, ...]:
    """``"1.44"`` as something that compares; malformed parts count as 0."""
    return tuple(int(part) if part.isdecimal() else 0 for part in version.split("."))


def encode_path(path: str) -> str:
    """The path with everything but unreserved characters and ``/`` and ``:`` percent-encoded."""
    return _quote(path, b"/:@")


def encode_query(query: Query) -> str:
    """``?name=value&...``, or ``""``.

    None, False, 0 and ``""`` are left out; True is ``1``; a list repeats its name; a dict of
    lists is Docker's JSON form of filters.
    """
    pairs: list[str] = []
    for name, value in query.items():
        if isinstance(value, dict):
            filters = {key: dict.fromkeys(values, True) for key, values in value.items()}
            values = [json.dumps(filters, separators=(",", ":"))] if filters else []
        elif isinstance(value, list):
            values = value
        elif value is True:
            values = ["1"]
        else:
            values = [str(value)] if value else []
        pairs += [f"{name}={_quote(item, b'')}" for item in values]
    return "?" + "&".join(pairs) if pairs else ""


def _quote(text: str, extra: bytes) -> str:
    raw = text.encode("utf-8", "surrogateescape")
    return "".join(chr(b) if b in _SAFE or b in extra else f"%{b:02X}" for b in raw)


def _message(response: Response, body: bytes) -> str:
    try:
        document = json.loads(body) if body.strip() else None
    except ValueError:
        document = None
    if isinstance(document, dict) and isinstance(document.get("message"), str):
        return str(document["message"])
    content = body.decode("utf-8", "replace").strip()
    return content[:2048] or f"request returned status {response.status}"
