"""Caches in GitHub's cache service, both versions of its API.

Version 1 is ``_apis/artifactcache`` (reserve, upload in ranges, commit); version 2 is Twirp
(``CacheService``) with uploads straight to a signed Azure URL. Entries never change; a blob has a
key of its own, the configuration a new key each time, found by its prefix.
"""

from __future__ import annotations

import hashlib
import json
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sampan.build.caches.web import Reply, read, send
from sampan.content import ContentStore
from sampan.errors import (
    InvalidParameter,
    NotFound,
    SampanError,
    Unauthorized,
    Unavailable,
    Unsupported,
)
from sampan.model.descriptor import Descriptor

_VERSION = "1"
_PIECE = 1 << 20
#: Bytes of one ranged upload.
_RANGE = 32 << 20
_SERVICE = "twirp/github.actions.results.api.v1.CacheService"


@dataclass(frozen=True, slots=True, kw_only=True)
class GitHub:
    """The cache service of one workflow run; ``v2`` says which API ``url`` has."""

    url: str
    token: str = field(repr=False)
    scope: str = "buildkit"
    version: str = _VERSION
    v2: bool = False
    clock: Callable[[], float] = time.time

    def load(self) -> bytes | None:
        """See :class:`sampan.build.caches.Backend`."""
        where = self._find(f"index-{self.scope}-{self.version}", prefix=True)
        return b"".join(read(where, {})) if where else None

    def fetch(self, blob: Descriptor) -> Iterator[bytes]:
        """See :class:`sampan.build.caches.Backend`."""
        where = self._find(_key(blob), prefix=False)
        if where is None:
            raise NotFound(f"blob {blob.digest} is not in the cache any more")
        yield from read(where, {})

    def save(self, config: bytes, blobs: Sequence[Descriptor], content: ContentStore) -> None:
        """See :class:`sampan.build.caches.Backend`."""
        for blob in blobs:
            if self._find(_key(blob), prefix=False) is None:
                self._upload(_key(blob), blob.size, partial(_range, content, blob))
        stamp = f"{self.clock():.6f}"
        key = f"index-{self.scope}-{self.version}#{stamp}"
        self._upload(key, len(config), lambda at, size: iter((config[at : at + size],)))

    # -- looking up

    def _find(self, key: str, *, prefix: bool) -> str | None:
        """Where an entry can be read; with ``prefix`` the newest whose key begins so."""
        if self.v2:
            answer = self._twirp(
                "GetCacheEntryDownloadURL",
                {
                    "key": key,
                    "restore_keys": [f"{key}#"] if prefix else [],
                    "version": self._scope(key),
                },
            )
            return str(answer["signed_download_url"]) if answer.get("ok") else None
        wanted = urllib.parse.urlencode(
            {"keys": f"{key}#" if prefix else key, "version": self._scope(key)}
        )
        reply = self._v1("GET", f"cache?{wanted}")
        if reply.status == 204:
            return None
        self._check(reply)
        found = json.loads(reply.body)
        if not prefix and found.get("cacheKey") != key:
            return None
        return str(found["archiveLocation"])

    def _scope(self, key: str) -> str:
        """The "version" an entry is found under: one for all entries of ours of a kind."""
        kind = "index" if key.startswith("index-") else "blob"
        return hashlib.sha256(f"sampan-{kind}-{_VERSION}".encode()).hexdigest()

    # -- storing

    def _upload(self, key: str, size: int, part: Callable[[int, int], Iterator[bytes]]) -> None:
        if self.v2:
            self._upload_v2(key, size, part)
            return
        reply = self._v1(
            "POST", "caches", {"key": key, "version": self._scope(key), "cacheSize": size}
        )
        if reply.status == 409:
            return  # somebody stores the same at this moment
        self._check(reply)
        identity = int(json.loads(reply.body)["cacheId"])
        for start in range(0, size, _RANGE):
            length = min(_RANGE, size - start)
            reply = send(
                "PATCH",
                self._url(f"caches/{identity}"),
                {
                    **self._headers(),
                    "Content-Type": "application/octet-stream",
                    "Content-Length": str(length),
                    "Content-Range": f"bytes {start}-{start + length - 1}/*",
                },
                partial(part, start, length),
            )
            self._check(reply)
        self._check(self._v1("POST", f"caches/{identity}", {"size": size}))

    def _upload_v2(self, key: str, size: int, part: Callable[[int, int], Iterator[bytes]]) -> None:
        version = self._scope(key)
        answer = self._twirp("CreateCacheEntry", {"key": key, "version": version})
        if not answer.get("ok"):
            return  # it is there, or on its way
        reply = send(
            "PUT",
            str(answer["signed_upload_url"]),
            {
                "x-ms-blob-type": "BlockBlob",
                "Content-Type": "application/octet-stream",
                "Content-Length": str(size),
            },
            lambda: part(0, size),
        )
        self._check(reply)
        done = self._twirp(
            "FinalizeCacheEntryUpload", {"key": key, "version": version, "size_bytes": str(size)}
        )
        if not done.get("ok"):
            raise Unavailable(f"the cache service did not take {key}")

    # -- requests

    def _url(self, path: str) -> str:
        return f"{self.url.rstrip('/')}/_apis/artifactcache/{path}"

    def _headers(self) -> dict[str, str]:
        return {
            "Authorization": f"Bearer {self.token}",
            "Accept": "application/json;api-version=6.0-preview.1",
        }

    def _v1(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Reply:
        headers = self._headers()
        data = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            data = json.dumps(body).encode()
        return send(method, self._url(path), headers, data)

    def _twirp(self, method: str, body: Mapping[str, Any]) -> dict[str, Any]:
        reply = send(
            "POST",
            f"{self.url.rstrip('/')}/{_SERVICE}/{method}",
            {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"},
            json.dumps(body).encode(),
        )
        if reply.status == 404 or (reply.status == 409 and method == "CreateCacheEntry"):
            return {}
        self._check(reply)
        found = json.loads(reply.body)
        return found if isinstance(found, dict) else {}

    def _check(self, reply: Reply) -> None:
        if 200 <= reply.status < 300:
            return
        kind: type[SampanError] = Unauthorized if reply.status in (401, 403) else Unavailable
        raise kind(f"the cache service answered status {reply.status}")


def _key(blob: Descriptor) -> str:
    return f"buildkit-blob-1-{blob.digest}"


def _range(content: ContentStore, blob: Descriptor, start: int, size: int) -> Iterator[bytes]:
    with content.open(blob.digest) as file:
        file.seek(start)
        while size and (piece := file.read(min(_PIECE, size))):
            size -= len(piece)
            yield piece


def make(values: Mapping[str, str]) -> GitHub:
    """The backend of ``type=gha,…``. Raises InvalidParameter, Unsupported naming the key."""
    known = {"scope", "url", "url_v2", "token", "version", "timeout"}
    for key in values:
        if key not in known:
            raise Unsupported(f"key {key!r} of a gha cache is not supported")
    version = values.get("version", "2" if values.get("url_v2") else "1")
    url = values.get("url_v2", "") if version == "2" else values.get("url", "")
    if not url:
        raise InvalidParameter("url is required for a gha cache")
    if not values.get("token"):
        raise InvalidParameter("token is required for a gha cache")
    return GitHub(
        url=url,
        token=values["token"],
        scope=values.get("scope", "buildkit"),
        v2=version == "2",
    )
