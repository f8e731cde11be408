"""Typed calls of a daemon's API from several threads: a pool of connections and msgspec.

Each call borrows a connection; a streamed answer keeps its connection until it ends or is closed.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

import msgspec

from sampan.client.api import ApiClient, json_objects
from sampan.client.http import Response, Stream
from sampan.wire.base import Json, Object

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.client.api import Query
    from sampan.client.document import Document

T = TypeVar("T")
#: Connections kept open while nobody uses them.
_KEPT = 8


class Transport:
    """Performs calls. Thread-safe."""

    def __init__(self, client: ApiClient) -> None:
        self._first = client
        self._idle: list[ApiClient] = [client]
        self._lock = threading.Lock()
        self._closed = False

    @property
    def version(self) -> str:
        """The API version in use."""
        with self._lock:
            return self._first.version

    @contextmanager
    def _borrowed(self) -> Iterator[ApiClient]:
        with self._lock:
            client = self._idle.pop() if self._idle else self._first.sibling()
        try:
            yield client
        finally:
            with self._lock:
                keep = not self._closed and len(self._idle) < _KEPT
                if keep:
                    self._idle.append(client)
            if not keep:
                client.close()

    def call(
        self,
        kind: type[T],
        method: str,
        path: str,
        query: Query | None = None,
        body: Object | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> T:
        """One request and its decoded answer. Raises the errors of :mod:`sampan.errors`."""
        with self._borrowed() as client:
            fields = dict(headers or {})
            payload = None
            if body is not None:
                payload = msgspec.json.encode(body)
                fields["Content-Type"] = "application/json"
            content = client.open(method, path, query, payload, fields).read()
        if kind is type(None):
            return None
        return msgspec.json.decode(content, type=kind, strict=False)

    def do(
        self, method: str, path: str, query: Query | None = None, body: Object | None = None
    ) -> None:
        """One request whose answer says nothing but that it was done."""
        self.call(type(None), method, path, query, body)

    @contextmanager
    def opened(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        body: Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[Response]:
        """A request whose answer is read by the caller, and given up at the end."""
        with self._borrowed() as client:
            response = client.open(method, path, query, body, headers)
            try:
                yield response
            finally:
                response.close()

    def pieces(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        body: Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[bytes]:
        """The bytes of an answer as they come. The request is sent at once."""
        return _begun(self._pieces(method, path, query, body, headers))

    def _pieces(
        self,
        method: str,
        path: str,
        query: Query | None,
        body: Iterable[bytes] | None,
        headers: Mapping[str, str] | None,
    ) -> Iterator[bytes]:
        with self.opened(method, path, query, body, headers) as response:
            yield b""
            yield from response

    def objects(
        self,
        kind: type[T],
        method: str,
        path: str,
        query: Query | None = None,
    ) -> Iterator[T]:
        """The objects of a streamed answer as they come. The request is sent at once."""

        def generate() -> Iterator[T]:
            with self.opened(method, path, query) as response:
                yield None  # type: ignore[misc]
                for line in response.lines():
                    yield msgspec.json.decode(line, type=kind, strict=False)

        return _begun(generate())

    def progress(
        self,
        path: str,
        query: Query | None = None,
        body: Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[dict[str, Json]]:
        """The progress records of a POST as they come. The request is sent at once."""

        def generate() -> Iterator[Document]:
            with self.opened("POST", path, query, body, headers) as response:
                yield {}
                yield from json_objects(response)

        return _begun(generate())

    def hijack(self, path: str, query: Query | None = None, body: Object | None = None) -> Stream:
        """A raw stream; the connection is the caller's."""
        payload = None if body is None else msgspec.to_builtins(body)
        with self._borrowed() as client:
            return client.hijack(path, query, payload, exact=True)

    def close(self) -> None:
        """Close the idle connections; those in use close when they are given back."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for client in idle:
            client.close()


def _begun(items: Iterator[T]) -> Iterator[T]:
    """A generator run up to its first yield, so that its request is sent and may fail now."""
    next(items)
    return items
