"""Request paths of the distribution API (OCI distribution spec, "Endpoints") as values.

Repository names hold slashes, and components named like endpoints (``a/blobs/b``) are legal, so a
path is read from its end. Nothing that does not match the specification's grammar gets past here:
what the rest of the server calls a repository, tag, digest or upload is safe to build keys from.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from sampan.errors import InvalidParameter
from sampan.model.digest import Digest
from sampan.registry.server.errors import Code, ProtocolError

#: OCI distribution spec, "Pulling manifests": <name>.
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*", re.ASCII)
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}", re.ASCII)
_UPLOAD = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
#: Clients limit host and name together to 255 characters; the name alone may not exceed it.
MAX_NAME = 255


class Endpoint(Enum):
    """What a path addresses; the methods each takes are the server's business."""

    BASE = "base"
    CATALOG = "catalog"
    MANIFEST = "manifest"
    BLOB = "blob"
    UPLOADS = "uploads"
    UPLOAD = "upload"
    TAGS = "tags"
    REFERRERS = "referrers"
    EXTENSIONS = "extensions"


@dataclass(frozen=True, slots=True)
class Route:
    """An endpoint, the repository it is in, and the last word of the path.

    ``argument`` is a tag or digest for MANIFEST, a digest for BLOB and REFERRERS, an upload id for
    UPLOAD, otherwise empty.
    """

    endpoint: Endpoint
    repository: str = ""
    argument: str = ""


def parse(path: str) -> Route | None:
    """The route of a decoded URL path, or None when no endpoint has that form.

    Raises :class:`ProtocolError` NAME_INVALID for a repository name against the grammar.
    """
    if path in ("/v2/", "/v2"):
        return Route(Endpoint.BASE)
    if not path.startswith("/v2/"):
        return None
    parts = path[4:].split("/")
    if parts == ["_catalog"]:
        return Route(Endpoint.CATALOG)
    if parts[-3:] == ["_oci", "ext", "discover"]:
        return Route(Endpoint.EXTENSIONS, _name(parts[:-3]) if parts[:-3] else "")
    if len(parts) < 3:
        return None
    if parts[-3:-1] == ["blobs", "uploads"] and len(parts) > 3:
        if not parts[-1]:
            return Route(Endpoint.UPLOADS, _name(parts[:-3]))
        return Route(Endpoint.UPLOAD, _name(parts[:-3]), parts[-1])
    kind, last = parts[-2], parts[-1]
    if (kind, last) == ("blobs", "uploads"):
        return Route(Endpoint.UPLOADS, _name(parts[:-2]))
    if (kind, last) == ("tags", "list"):
        return Route(Endpoint.TAGS, _name(parts[:-2]))
    endpoint = {
        "manifests": Endpoint.MANIFEST,
        "blobs": Endpoint.BLOB,
        "referrers": Endpoint.REFERRERS,
    }.get(kind)
    return endpoint and Route(endpoint, _name(parts[:-2]), last)


def _name(parts: list[str]) -> str:
    return repository("/".join(parts))


def repository(name: str) -> str:
    """``name``, which is a repository name; raises NAME_INVALID."""
    if len(name) > MAX_NAME or not _NAME.fullmatch(name):
        raise ProtocolError(Code.NAME_INVALID, f"invalid repository name: {name[:80]!r}")
    return name


def is_tag(text: str) -> bool:
    """Whether ``text`` has the form of a tag."""
    return _TAG.fullmatch(text) is not None


def is_upload(text: str) -> bool:
    """Whether ``text`` has the form of the upload ids this server gives out (a UUID)."""
    return _UPLOAD.fullmatch(text) is not None


def digest(text: str) -> Digest:
    """The digest written as ``text``; raises DIGEST_INVALID."""
    try:
        return Digest.parse(text)
    except InvalidParameter as error:
        raise ProtocolError(Code.DIGEST_INVALID, error.message) from error


def reference(text: str) -> str | Digest:
    """A tag, or a digest when there is a colon; raises DIGEST_INVALID or MANIFEST_INVALID."""
    if ":" in text:
        return digest(text)
    if not is_tag(text):
        raise ProtocolError(Code.MANIFEST_INVALID, f"invalid tag: {text[:80]!r}")
    return text
