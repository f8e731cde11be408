"""Just enough of S3's REST API, signed, retried, over aiohttp: objects, listing, multipart."""

from __future__ import annotations

import asyncio
import builtins
import hashlib
import io
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit
from xml.etree import ElementTree

import aiohttp
from yarl import URL

from sampan.errors import NotFound, Unavailable
from sampan.registry.server.config import S3
from sampan.registry.server.sigv4 import (
    UNSIGNED,
    Credentials,
    encode_path,
    encode_query,
    presign,
    sign_headers,
)

_ATTEMPTS = 5
_PAUSE = 0.1
_TIMEOUT = aiohttp.ClientTimeout(total=None, connect=10, sock_read=60)
_MAX_XML = 8 << 20
_EMPTY: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Object:
    """A listed object: key without the configured prefix, size, seconds since the epoch."""

    key: str
    size: int
    modified: float


def _utc() -> datetime:
    return datetime.now(UTC)


class S3Client:
    """A bucket. Keys get the configured prefix. ``clock`` gives the time to sign with."""

    def __init__(self, config: S3, clock: Callable[[], datetime] = _utc) -> None:
        self._config = config
        self._clock = clock
        self._credentials = Credentials(
            access_key=config.access_key, secret_key=config.secret_key, region=config.region
        )
        self._scheme, self._host, self._base = _place(config, config.endpoint)
        self._public = _place(config, config.public_endpoint or config.endpoint)
        self._prefix = f"{config.prefix.strip('/')}/" if config.prefix.strip("/") else ""
        self._session: aiohttp.ClientSession | None = None

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            tls = ssl.create_default_context(cafile=self._config.ca_file or None)
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=64, ssl=tls),
                timeout=_TIMEOUT,
                auto_decompress=False,
            )
        return self._session

    async def close(self) -> None:
        """Close connections."""
        if self._session is not None:
            await self._session.close()

    def _key(self, key: str) -> str:
        return f"{self._base}/{self._prefix}{key}"

    def presigned(self, key: str, seconds: int, query: Mapping[str, str]) -> str:
        """A URL that gives the object to anybody for ``seconds`` seconds."""
        scheme, host, base = self._public
        path = f"{base}/{self._prefix}{key}"
        signed = presign(self._credentials, "GET", host, path, query, self._clock(), seconds)
        return f"{scheme}://{host}{encode_path(path)}?{signed}"

    @asynccontextmanager
    async def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] = _EMPTY,
        *,
        body: bytes = b"",
        headers: Mapping[str, str] = _EMPTY,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A signed request, repeated while the service is away. Yields answers below 300.

        Raises NotFound for 404, Unavailable for anything else.
        """
        text = encode_query(query)
        target = f"{self._scheme}://{self._host}{encode_path(path)}" + (f"?{text}" if text else "")
        payload = hashlib.sha256(body).hexdigest() if len(body) < 1 << 16 else UNSIGNED
        for attempt in range(_ATTEMPTS):
            if attempt:
                await asyncio.sleep(_PAUSE * 2**attempt)
            signed = sign_headers(
                self._credentials, method, self._host, path, query, headers, payload, self._clock()
            )
            try:
                response = await self._open().request(
                    method,
                    URL(target, encoded=True),
                    headers=signed,
                    # A file object, since aiohttp would copy a large body in one go.
                    data=io.BytesIO(body) if body else None,
                    allow_redirects=False,
                )
            except (aiohttp.ClientError, TimeoutError) as error:
                failure = f"{type(error).__name__}"
                continue
            async with response:
                if response.status < 300:
                    yield response
                    return
                if response.status == 404:
                    raise NotFound(f"the object store has no {path}")
                failure = f"status {response.status} {await _error_code(response)}"
                if response.status < 500 and response.status != 429:
                    break
        raise Unavailable(f"the object store failed: {method}: {failure}")

    async def get(self, key: str) -> bytes:
        """An object's bytes; raises NotFound."""
        async with self._request("GET", self._key(key)) as response:
            return await response.read()

    async def stream(self, key: str, start: int, end: int) -> AsyncIterator[bytes]:
        """Bytes ``start`` to ``end`` (exclusive, beyond ``start``) of an object, in pieces.

        Raises NotFound, and Unavailable when cut short.
        """
        headers = {"range": f"bytes={start}-{end - 1}"}
        try:
            async with self._request("GET", self._key(key), headers=headers) as response:
                async for piece in response.content.iter_chunked(1 << 20):
                    yield piece
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Unavailable(f"the object store failed: {type(error).__name__}") from error

    async def put(self, key: str, data: bytes) -> None:
        """Write an object."""
        async with self._request("PUT", self._key(key), body=data):
            pass

    async def head(self, key: str) -> Object | None:
        """Size and time, None when absent."""
        try:
            async with self._request("HEAD", self._key(key)) as response:
                modified = parsedate_to_datetime(response.headers["Last-Modified"])
                return Object(
                    key, int(response.headers.get("Content-Length", "0")), modified.timestamp()
                )
        except NotFound:
            return None

    async def delete(self, key: str) -> None:
        """Remove an object, if there is one."""
        try:
            async with self._request("DELETE", self._key(key)):
                pass
        except NotFound:
            pass

    async def list(self, prefix: str, after: str = "") -> AsyncIterator[Object]:
        """Objects below ``prefix`` in byte order, after the key ``after``."""
        query = {"list-type": "2", "prefix": self._prefix + prefix}
        if after:
            query["start-after"] = self._prefix + after
        while True:
            async with self._request("GET", self._base or "/", query) as response:
                tree = await _xml(response)
            for item in tree.iter("Contents"):
                yield Object(
                    (item.findtext("Key") or "").removeprefix(self._prefix),
                    int(item.findtext("Size") or "0"),
                    _time(item.findtext("LastModified") or ""),
                )
            token = tree.findtext("NextContinuationToken")
            if tree.findtext("IsTruncated") != "true" or not token:
                return
            query["continuation-token"] = token

    async def copy(self, source: str, target: str) -> None:
        """Copy an object of up to 5 GiB within the bucket."""
        headers = {"x-amz-copy-source": encode_path(self._source(source))}
        async with self._request("PUT", self._key(target), headers=headers) as response:
            await _checked(response)

    def _source(self, key: str) -> str:
        return f"/{self._config.bucket}/{self._prefix}{key}"

    async def multipart_begin(self, key: str) -> str:
        """Begin a multipart upload; its id."""
        async with self._request("POST", self._key(key), {"uploads": ""}) as response:
            return (await _xml(response)).findtext("UploadId") or ""

    async def multipart_put(self, key: str, upload: str, number: int, data: bytes) -> str:
        """Send part ``number`` (from 1); its entity tag."""
        query = {"uploadId": upload, "partNumber": str(number)}
        async with self._request("PUT", self._key(key), query, body=data) as response:
            return response.headers["ETag"]

    async def multipart_copy(
        self, key: str, upload: str, number: int, source: str, start: int, end: int
    ) -> str:
        """Make bytes ``start`` to ``end`` (exclusive) of another object a part; its entity tag."""
        query = {"uploadId": upload, "partNumber": str(number)}
        headers = {
            "x-amz-copy-source": encode_path(self._source(source)),
            "x-amz-copy-source-range": f"bytes={start}-{end - 1}",
        }
        async with self._request("PUT", self._key(key), query, headers=headers) as response:
            return (await _checked(response)).findtext("ETag") or ""

    async def multipart_finish(self, key: str, upload: str, tags: builtins.list[str]) -> None:
        """Make the parts one object."""
        root = ElementTree.Element("CompleteMultipartUpload")
        for number, tag in enumerate(tags, 1):
            part = ElementTree.SubElement(root, "Part")
            ElementTree.SubElement(part, "PartNumber").text = str(number)
            ElementTree.SubElement(part, "ETag").text = tag
        body = ElementTree.tostring(root)
        async with self._request("POST", self._key(key), {"uploadId": upload}, body=body) as answer:
            await _checked(answer)

    async def multipart_list(self) -> AsyncIterator[tuple[str, str, float]]:
        """Unfinished multipart uploads: key, id, and when they were begun."""
        query = {"uploads": "", "prefix": self._prefix}
        while True:
            async with self._request("GET", self._base or "/", query) as response:
                tree = await _xml(response)
            for item in tree.iter("Upload"):
                key = (item.findtext("Key") or "").removeprefix(self._prefix)
                yield key, item.findtext("UploadId") or "", _time(item.findtext("Initiated") or "")
            if tree.findtext("IsTruncated") != "true":
                return
            query["key-marker"] = tree.findtext("NextKeyMarker") or ""
            query["upload-id-marker"] = tree.findtext("NextUploadIdMarker") or ""

    async def multipart_abort(self, key: str, upload: str) -> None:
        """Drop the parts sent so far."""
        try:
            async with self._request("DELETE", self._key(key), {"uploadId": upload}):
                pass
        except NotFound:
            pass


def _place(config: S3, endpoint: str) -> tuple[str, str, str]:
    """Scheme, host and path prefix of the bucket at an endpoint."""
    parts = urlsplit(endpoint)
    base = parts.path.rstrip("/")
    if config.path_style:
        return parts.scheme, parts.netloc, f"{base}/{config.bucket}"
    return parts.scheme, f"{config.bucket}.{parts.netloc}", base


def _time(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() if text else 0.0


async def _xml(response: aiohttp.ClientResponse) -> ElementTree.Element:
    """The body's XML without namespaces."""
    raw = await response.content.read(_MAX_XML)
    while not response.content.at_eof() and len(raw) < _MAX_XML:
        raw += await response.content.read(_MAX_XML - len(raw))
    try:
        tree = ElementTree.fromstring(raw)
    except ElementTree.ParseError as error:
        raise Unavailable("the object store answered something that is no XML") from error
    for element in tree.iter():
        element.tag = element.tag.rpartition("}")[2]
    return tree


async def _checked(response: aiohttp.ClientResponse) -> ElementTree.Element:
    """The body's XML, which can be an error despite the status 200 (copies, completions)."""
    tree = await _xml(response)
    if tree.tag == "Error":
        raise Unavailable(f"the object store failed: {tree.findtext('Code')}")
    return tree


async def _error_code(response: aiohttp.ClientResponse) -> str:
    if response.method == "HEAD":
        return ""
    try:
        return (await _xml(response)).findtext("Code") or ""
    except (Unavailable, aiohttp.ClientError, TimeoutError):
        return ""
