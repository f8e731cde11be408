"""Pushing a blob as a conversation without I/O (OCI distribution spec, "Pushing blobs").

::

    POST ?mount&from ──201──► mounted
         │202
         ├─ PUT ?digest (all bytes) ──201──► done            monolithic
         └─ PATCH, PATCH, ... ─► PUT ?digest ──201──► done   in chunks

A chunk that failed on the way (the driver retries nothing with a body) is followed by ``GET`` of
the session, which says where to go on; so a broken connection costs what was in flight.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from urllib.parse import quote, urljoin, urlsplit

from sampan.errors import InvalidParameter, Unreachable
from sampan.model.digest import Digest
from sampan.registry.http import BROKEN, Conversation, Reply, Request, failure

#: Gives the blob's bytes from an offset (inclusive) to an end (exclusive).
Source = Callable[[int, int], AsyncIterator[bytes]]
_RANGE = re.compile(r"(?:bytes=)?0-(\d{1,18})", re.ASCII)
_OCTETS = "application/octet-stream"
_MAX_BREAKS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """What to push where: ``base`` is the repository's URL (``https://host/v2/name``).

    ``chunk`` is the most bytes in one request, None for all in one; ``source`` names another
    repository of the registry that may hold the blob.
    """

    base: str
    digest: Digest
    size: int
    read: Source
    chunk: int | None = None
    source: str = ""


def push(upload: Upload) -> Conversation[str]:
    """Push; the repository it was mounted from, or empty when bytes were sent.

    Replies with status :data:`BROKEN` stand for exchanges that failed. Raises what a refusal means.
    """
    reply = yield _begin(upload)
    if reply.status == 201:
        return upload.source
    if reply.status not in (202,):
        raise failure(reply, f"starting to push {upload.digest}")
    location = _location(upload, reply, "")
    offset, breaks = 0, 0
    while True:
        # After a break, bytes are sent by PATCH: a PUT with a rest is not understood everywhere.
        whole = offset == 0 and not breaks and (upload.chunk is None or upload.size <= upload.chunk)
        if whole:
            reply = yield _put(upload, location, 0)
        elif offset < upload.size:
            reply = yield _patch(upload, location, offset)
        else:
            reply = yield _put(upload, location, upload.size)
        if reply.status == 201 or (reply.status == 204 and offset == upload.size):
            return ""
        if reply.status == 202 and not whole:
            location = _location(upload, reply, location)
            offset = _received(reply, upload, offset)
            continue
        if reply.status == 413 and whole:
            # A proxy limits bodies: go on in chunks.
            upload = _smaller(upload)
        elif reply.status not in (BROKEN, 408, 416, 500, 502, 503, 504):
            raise failure(reply, f"pushing {upload.digest}")
        breaks += 1
        if breaks > _MAX_BREAKS:
            raise Unreachable(f"pushing {upload.digest} broke {breaks} times")
        reply = yield Request(method="GET", url=location)
        if reply.status != 204:
            reply = yield _begin(upload)  # the session is gone: from the beginning
            if reply.status != 202:
                raise failure(reply, f"pushing {upload.digest}")
            location, offset = _location(upload, reply, ""), 0
            continue
        location = _location(upload, reply, location)
        offset = _received(reply, upload, None)


def _smaller(upload: Upload) -> Upload:
    return Upload(
        base=upload.base,
        digest=upload.digest,
        size=upload.size,
        read=upload.read,
        chunk=min(upload.chunk or upload.size, 16 << 20),
        source=upload.source,
    )


def _begin(upload: Upload) -> Request:
    query = []
    if upload.source:
        query += [f"mount={upload.digest}", f"from={quote(upload.source, safe='')}"]
    if upload.digest.algorithm != "sha256":
        query.append(f"digest-algorithm={upload.digest.algorithm}")
    url = f"{upload.base}/blobs/uploads/" + (f"?{'&'.join(query)}" if query else "")
    return Request(method="POST", url=url, headers={"Content-Length": "0"})


def _put(upload: Upload, location: str, offset: int) -> Request:
    """The request that closes the session, with everything from ``offset`` on."""
    url = f"{location}{'&' if '?' in location else '?'}digest={quote(str(upload.digest), safe='')}"
    if offset == upload.size:
        return Request(method="PUT", url=url, headers={"Content-Length": "0"})
    return Request(
        method="PUT",
        url=url,
        headers={"Content-Type": _OCTETS},
        body=lambda: upload.read(offset, upload.size),
        length=upload.size - offset,
    )


def _patch(upload: Upload, location: str, offset: int) -> Request:
    end = min(offset + (upload.chunk or upload.size), upload.size)
    return Request(
        method="PATCH",
        url=location,
        headers={"Content-Type": _OCTETS, "Content-Range": f"{offset}-{end - 1}"},
        body=lambda: upload.read(offset, end),
        length=end - offset,
    )


def _location(upload: Upload, reply: Reply, default: str) -> str:
    location = reply.headers.get("location", "")
    if not location and default:
        return default
    url = urljoin(reply.url or f"{upload.base}/", location)
    if not location or urlsplit(url).scheme not in ("http", "https"):
        raise InvalidParameter(f"pushing {upload.digest}: the registry named no upload location")
    return url


def _received(reply: Reply, upload: Upload, before: int | None) -> int:
    """How many bytes the registry has; for a chunk, what it says or else what was sent.

    ``0-0`` of a status means none, since registries say so of an upload without a byte.
    """
    match = _RANGE.fullmatch(reply.headers.get("range", ""))
    sent = None if before is None else min(before + (upload.chunk or upload.size), upload.size)
    if match is None:
        received = sent or 0
    else:
        received = int(match[1]) + 1
        if received == 1 and sent is None:
            received = 0
        if sent is not None and received > sent:
            raise InvalidParameter(f"pushing {upload.digest}: the registry has more than was sent")
    if received > upload.size:
        raise InvalidParameter(f"pushing {upload.digest}: the registry has more than was sent")
    return received
