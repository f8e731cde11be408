"""Caches in S3: blobs and manifests as objects, requests signed with version 4 signatures.

Spec: the AWS "Signature Version 4" signing process; keys as BuildKit's s3 backend lays them out
(``PREFIX BLOBS_PREFIX sha256:…`` and ``PREFIX MANIFESTS_PREFIX NAME``).
"""

from __future__ import annotations

import hashlib
import hmac
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime

from sampan.build.caches.web import Reply, read, send
from sampan.content import ContentStore
from sampan.errors import InvalidParameter, SampanError, Unauthorized, Unavailable
from sampan.model.descriptor import Descriptor

_UNSIGNED = "UNSIGNED-PAYLOAD"
_PIECE = 1 << 20
#: Objects seen again within this many seconds keep their age (``touch_refresh``).
TOUCH_SECONDS = 24 * 3600


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class S3:
    """A bucket; ``names`` are the manifests written, the first is the one read."""

    bucket: str
    region: str
    names: tuple[str, ...] = ("buildkit",)
    prefix: str = ""
    blobs_prefix: str = "blobs/"
    manifests_prefix: str = "manifests/"
    endpoint: str = ""
    path_style: bool = False
    access_key: str = ""
    secret_key: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    parallel: int = 4
    attempts: int = 3
    touch: int = TOUCH_SECONDS
    clock: Callable[[], datetime] = _now

    def load(self) -> bytes | None:
        """See :class:`sampan.build.caches.Backend`."""
        reply = self._send("GET", self._manifest(self.names[0]))
        if reply.status == 404:
            return None
        self._check(reply, "reading the manifest")
        return reply.body

    def fetch(self, blob: Descriptor) -> Iterator[bytes]:
        """See :class:`sampan.build.caches.Backend`."""
        url = self._url(self._blob(blob))
        yield from read(url, self._headers("GET", url))

    def save(self, config: bytes, blobs: Sequence[Descriptor], content: ContentStore) -> None:
        """See :class:`sampan.build.caches.Backend`."""
        with ThreadPoolExecutor(self.parallel) as pool:
            for _ in pool.map(lambda blob: self._upload(blob, content), blobs):
                pass
        for name in self.names:
            reply = self._send("PUT", self._manifest(name), config)
            self._check(reply, "writing the manifest")

    def _upload(self, blob: Descriptor, content: ContentStore) -> None:
        key = self._blob(blob)
        reply = self._send("HEAD", key)
        if reply.status == 200:
            if self._age(reply) > self.touch:
                self._touch(key)
            return
        if reply.status != 404:
            self._check(reply, "looking for a blob")

        def body() -> Iterator[bytes]:
            with content.open(blob.digest) as file:
                while piece := file.read(_PIECE):
                    yield piece

        self._check(self._send("PUT", key, body, length=blob.size), "writing a blob")

    def _age(self, reply: Reply) -> float:
        """Seconds since an object was written."""
        try:
            moment = datetime.strptime(
                reply.headers.get("last-modified", ""), "%a, %d %b %Y %H:%M:%S %Z"
            )
        except ValueError:
            return 0.0
        return (self.clock() - moment.replace(tzinfo=UTC)).total_seconds()

    def _touch(self, key: str) -> None:
        """Copy an object onto itself, so that a rule about its age spares it."""
        more = {
            "x-amz-copy-source": urllib.parse.quote(f"{self.bucket}/{key}"),
            "x-amz-metadata-directive": "REPLACE",
        }
        self._check(self._send("PUT", key, b"", more=more), "refreshing a blob")

    def _blob(self, blob: Descriptor) -> str:
        return f"{self.prefix}{self.blobs_prefix}{blob.digest}"

    def _manifest(self, name: str) -> str:
        return f"{self.prefix}{self.manifests_prefix}{name}"

    def _url(self, key: str) -> str:
        endpoint = self.endpoint or f"https://s3.{self.region}.amazonaws.com"
        path = urllib.parse.quote(key, safe="/-_.~")
        if self.path_style:
            return f"{endpoint.rstrip('/')}/{self.bucket}/{path}"
        scheme, _, host = endpoint.rstrip("/").partition("://")
        return f"{scheme}://{self.bucket}.{host}/{path}"

    def _send(
        self,
        method: str,
        key: str,
        body: Callable[[], Iterator[bytes]] | bytes | None = None,
        *,
        length: int | None = None,
        more: Mapping[str, str] | None = None,
    ) -> Reply:
        url = self._url(key)
        headers = self._headers(method, url, more or {})
        if length is not None:
            headers["Content-Length"] = str(length)
        if body is not None:
            headers["Content-Type"] = "application/octet-stream"
        return send(method, url, headers, body, attempts=self.attempts)

    def _headers(
        self, method: str, url: str, more: Mapping[str, str] | None = None
    ) -> dict[str, str]:
        """The headers of a signed request; a bucket open to all takes unsigned ones."""
        moment = self.clock().strftime("%Y%m%dT%H%M%SZ")
        parts = urllib.parse.urlsplit(url)
        signed = {
            **(more or {}),
            "host": parts.netloc,
            "x-amz-content-sha256": _UNSIGNED,
            "x-amz-date": moment,
        }
        if self.token:
            signed["x-amz-security-token"] = self.token
        if not self.access_key:
            return dict(more or {})
        names = ";".join(sorted(signed))
        canonical = "\n".join(
            (
                method,
                parts.path,
                parts.query,
                *(f"{name}:{signed[name]}" for name in sorted(signed)),
                "",
                names,
                _UNSIGNED,
            )
        )
        scope = f"{moment[:8]}/{self.region}/s3/aws4_request"
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        text = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{digest}"
        key = f"AWS4{self.secret_key}".encode()
        for part in (moment[:8], self.region, "s3", "aws4_request"):
            key = hmac.digest(key, part.encode(), "sha256")
        signature = hmac.digest(key, text.encode(), "sha256").hex()
        return {
            **signed,
            "Authorization": f"AWS4-HMAC-SHA256 Credential={self.access_key}/{scope}, "
            f"SignedHeaders={names}, Signature={signature}",
        }

    def _check(self, reply: Reply, what: str) -> None:
        if reply.status in (200, 201, 204):
            return
        kind: type[SampanError] = Unauthorized if reply.status in (401, 403) else Unavailable
        raise kind(f"{what} in bucket {self.bucket} failed: status {reply.status}")


def make(values: Mapping[str, str]) -> S3:
    """The backend of ``type=s3,…``. Raises InvalidParameter naming what is missing."""
    for key in ("bucket", "region"):
        if not values.get(key):
            raise InvalidParameter(f"{key} is required for an s3 cache")
    known = {
        *("bucket", "region", "name", "prefix", "blobs_prefix", "manifests_prefix"),
        *("endpoint_url", "use_path_style", "access_key_id", "secret_access_key"),
        *("session_token", "touch_refresh", "upload_parallelism", "disable_accept_encoding"),
        *("retry_mode", "retry_max_attempts"),
    }
    for key in values:
        if key not in known:
            raise InvalidParameter(f"key {key!r} of an s3 cache is not supported")
    return S3(
        bucket=values["bucket"],
        region=values["region"],
        names=tuple(values.get("name", "buildkit").split(";")),
        prefix=values.get("prefix", ""),
        blobs_prefix=values.get("blobs_prefix", "blobs/"),
        manifests_prefix=values.get("manifests_prefix", "manifests/"),
        endpoint=values.get("endpoint_url", ""),
        path_style=values.get("use_path_style", "").lower() in ("1", "true"),
        access_key=values.get("access_key_id", ""),
        secret_key=values.get("secret_access_key", ""),
        token=values.get("session_token", ""),
        parallel=max(1, _number(values, "upload_parallelism", 4)),
        attempts=max(1, _number(values, "retry_max_attempts", 3)),
        touch=_duration(values.get("touch_refresh", "24h")),
    )


def _number(values: Mapping[str, str], key: str, default: int) -> int:
    text = values.get(key, "")
    if not text:
        return default
    if not text.isascii() or not text.isdecimal():
        raise InvalidParameter(f"invalid {key} of an s3 cache: {text!r}")
    return int(text)


def _duration(text: str) -> int:
    units = {"h": 3600, "m": 60, "s": 1}
    if text[-1:] not in units or not text[:-1].isdecimal():
        raise InvalidParameter(f"invalid touch_refresh of an s3 cache: {text!r}")
    return int(text[:-1]) * units[text[-1]]
