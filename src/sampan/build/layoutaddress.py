"""``oci-layout://DIRECTORY[:TAG|@DIGEST]``: an image in an OCI layout of the client's own.

What the address means is found out where the directory is, as buildx does: the builder is told a
digest. OCI image spec 1.1, image-layout.md. Standard library alone: command lines load this.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sampan.errors import InvalidParameter, NotFound

SCHEME = "oci-layout://"
_DIGEST = re.compile(r"[a-z0-9]+:[0-9a-f]{32,}")
_REF_NAME = "org.opencontainers.image.ref.name"
_LIMIT = 4 << 20
_DEEPEST = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class LayoutImage:
    """An image of a layout: the digest of its manifest or index, and where the layout is."""

    directory: str
    digest: str

    def files(self) -> frozenset[str]:
        """What of the directory the image needs, its directories too, by relative paths."""
        found = {"oci-layout", "index.json", "blobs"}
        for digest in _reachable(self.directory, self.digest, 0):
            path = _blob(digest)
            found |= {os.path.dirname(path), path}
        return frozenset(found)


def find(address: str) -> LayoutImage:
    """The image an address names; without tag and digest, ``latest``. Blocking.

    Raises InvalidParameter for what is no layout, NotFound.
    """
    rest = address.removeprefix(SCHEME)
    place, at, digest = rest.rpartition("@")
    if at:
        if not _DIGEST.fullmatch(digest):
            raise InvalidParameter(f"{address}: invalid digest {digest!r}")
        return LayoutImage(directory=place, digest=digest)
    head, _, last = rest.rpartition("/")
    name, _, tag = last.partition(":")
    place = f"{head}/{name}" if head or rest.startswith("/") else name
    index = _document(os.path.join(place, "index.json"))
    for one in _list(index, "manifests"):
        title = str((one.get("annotations") or {}).get(_REF_NAME, ""))
        if (tag or "latest") in (title, title.rpartition(":")[2]):
            return LayoutImage(directory=place, digest=_digest(one))
    raise NotFound(f"{address}: the OCI layout has no image {tag or 'latest'!r}")


def _reachable(directory: str, digest: str, depth: int) -> Iterator[str]:
    """The digests of a manifest or index and of all it names that is there."""
    yield digest
    path = os.path.join(directory, _blob(digest))
    if depth > _DEEPEST or not os.path.exists(path):
        return
    document = _document(path)
    for one in _list(document, "manifests"):
        yield from _reachable(directory, _digest(one), depth + 1)
    config = document.get("config")
    if isinstance(config, dict) and "digest" in config:
        yield _digest(config)
    for one in _list(document, "layers"):
        yield _digest(one)


def _document(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            data = file.read(_LIMIT + 1)
    except FileNotFoundError:
        raise NotFound(f"{path}: no such file: not an OCI layout") from None
    try:
        found = json.loads(data) if len(data) <= _LIMIT else None
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise InvalidParameter(f"{path} is no document of an OCI layout")
    return found


def _list(document: dict[str, Any], key: str) -> list[dict[str, Any]]:
    found = document.get(key)
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _digest(descriptor: dict[str, Any]) -> str:
    found = str(descriptor.get("digest", ""))
    if not _DIGEST.fullmatch(found):
        raise InvalidParameter(f"malformed OCI layout: invalid digest {found!r}")
    return found


def _blob(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"
