"""GitHub's cache service, as far as build caches use it: both versions of its public protocol.

``python -m tests.compat.buildkit.githubcache PORT``. Version 1 reserves a number, takes ranges and
commits; version 2 is Twirp with uploads to a signed address. Entries never change and are found by
a key, or by the beginnings of keys, newest first, within one "version".
"""

from __future__ import annotations

import json
import re
import sys
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

TOKEN = "a-run's-token"
V1 = "/_apis/artifactcache"
V2 = "/twirp/github.actions.results.api.v1.CacheService/"


@dataclass
class Entry:
    key: str
    version: str
    data: bytearray = field(default_factory=bytearray)
    done: bool = False


class Store:
    """Entries by number; a later one is newer."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.entries: list[Entry] = []

    def reserve(self, key: str, version: str) -> int | None:
        with self.lock:
            if any((one.key, one.version) == (key, version) for one in self.entries):
                return None
            self.entries.append(Entry(key, version))
            return len(self.entries) - 1

    def find(self, keys: list[str], version: str) -> int | None:
        """An entry of the first key or one that begins with any of them."""
        for key in keys:
            for number, one in reversed(list(enumerate(self.entries))):
                if one.done and one.version == version and one.key.startswith(key):
                    return number
        return None


class Handler(BaseHTTPRequestHandler):
    store = Store()
    protocol_version = "HTTP/1.1"

    @property
    def base(self) -> str:
        return f"http://{self.headers['Host']}"

    def answer(self, status: int, document: Any = None, raw: bytes | None = None) -> None:
        body = raw if raw is not None else json.dumps(document).encode()
        if document is None and raw is None:
            body = b""
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def authorized(self) -> bool:
        if self.headers.get("Authorization") == f"Bearer {TOKEN}":
            return True
        self.body()
        self.answer(401, {"message": "not authorized"})
        return False

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if match := re.fullmatch(r"/blobs/(\d+)", url.path):  # signed: no token
            self.answer(200, raw=bytes(self.store.entries[int(match[1])].data))
            return
        if not self.authorized():
            return
        if url.path != f"{V1}/cache":
            self.answer(404)
            return
        query = parse_qs(url.query)
        number = self.store.find(query["keys"][0].split(","), query["version"][0])
        if number is None:
            self.answer(204)
            return
        one = self.store.entries[number]
        self.answer(200, {"cacheKey": one.key, "archiveLocation": f"{self.base}/blobs/{number}"})

    def do_POST(self) -> None:
        if not self.authorized():
            return
        asked = json.loads(self.body())
        if self.path == f"{V1}/caches":
            number = self.store.reserve(asked["key"], asked["version"])
            if number is None:
                self.answer(409, {"message": "already exists"})
            else:
                self.answer(201, {"cacheId": number})
        elif match := re.fullmatch(rf"{V1}/caches/(\d+)", self.path):
            one = self.store.entries[int(match[1])]
            one.done = len(one.data) == asked["size"]
            self.answer(204 if one.done else 400)
        elif self.path.startswith(V2):
            self.twirp(self.path.removeprefix(V2), asked)
        else:
            self.answer(404)

    def twirp(self, name: str, asked: dict[str, Any]) -> None:
        if name == "CreateCacheEntry":
            number = self.store.reserve(asked["key"], asked["version"])
            if number is None:
                self.answer(409, {"code": "already_exists", "msg": "cache entry already exists"})
                return
            where = f"{self.base}/upload/{number}?sig=x"
            self.answer(200, {"ok": True, "signed_upload_url": where})
        elif name == "FinalizeCacheEntryUpload":
            for number, one in enumerate(self.store.entries):
                if (one.key, one.version) == (asked["key"], asked["version"]):
                    one.done = len(one.data) == int(asked["size_bytes"])
                    self.answer(200, {"ok": one.done, "entry_id": str(number)})
                    return
            self.answer(404, {"code": "not_found"})
        elif name == "GetCacheEntryDownloadURL":
            keys = [asked["key"], *asked.get("restore_keys", [])]
            number = self.store.find(keys, asked["version"])
            if number is None:
                self.answer(200, {"ok": False})
                return
            one = self.store.entries[number]
            where = f"{self.base}/blobs/{number}?sig=x"
            self.answer(200, {"ok": True, "signed_download_url": where, "matched_key": one.key})
        else:
            self.answer(404, {"code": "bad_route"})

    def do_PATCH(self) -> None:
        if not self.authorized():
            return
        one = self.store.entries[int(self.path.rpartition("/")[2])]
        match = re.fullmatch(r"bytes (\d+)-(\d+)/\*", self.headers["Content-Range"])
        data = self.body()
        if match is None or int(match[1]) != len(one.data) or one.done:
            self.answer(416)
            return
        one.data += data
        self.answer(204)

    def do_PUT(self) -> None:
        match = re.fullmatch(r"/upload/(\d+)\?sig=x", self.path)
        data = self.body()
        if match is None or self.headers.get("x-ms-blob-type") != "BlockBlob":
            self.answer(400)
            return
        self.store.entries[int(match[1])].data[:] = data
        self.answer(201)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
