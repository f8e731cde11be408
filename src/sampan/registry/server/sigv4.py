"""AWS Signature Version 4 for S3, in headers and in pre-signed URLs (pure).

What is signed is the method, path, query, host and time, and the hash of the body or the word that
the body is not covered. (AWS: "Authenticating Requests (AWS Signature Version 4)".)
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote

UNSIGNED = "UNSIGNED-PAYLOAD"
_ALGORITHM = "AWS4-HMAC-SHA256"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """An access key, its secret and the region it is used in."""

    access_key: str
    secret_key: str
    region: str


def encode_path(path: str) -> str:
    """A path as it is signed and sent: each byte but unreserved ones and ``/`` percent-encoded."""
    return quote(path, safe="/-_.~")


def encode_query(query: Mapping[str, str]) -> str:
    """A query as it is signed and sent: sorted, percent-encoded."""
    return "&".join(
        f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}"
        for name, value in sorted(query.items())
    )


def sign_headers(
    credentials: Credentials,
    method: str,
    host: str,
    path: str,
    query: Mapping[str, str],
    headers: Mapping[str, str],
    payload_hash: str,
    now: datetime,
) -> dict[str, str]:
    """``headers`` completed by what authenticates the request; ``now`` is in UTC.

    ``path`` is not encoded yet; ``payload_hash`` is the body's SHA-256 in hexadecimal or
    :data:`UNSIGNED`.
    """
    stamp = now.strftime("%Y%m%dT%H%M%SZ")
    complete = {name.lower(): value for name, value in headers.items()}
    complete |= {"host": host, "x-amz-date": stamp, "x-amz-content-sha256": payload_hash}
    names = ";".join(sorted(complete))
    request = _canonical(method, path, query, complete, names, payload_hash)
    signature = _signature(credentials, stamp, request)
    complete["authorization"] = (
        f"{_ALGORITHM} Credential={credentials.access_key}/{_scope(credentials, stamp)}, "
        f"SignedHeaders={names}, Signature={signature}"
    )
    return complete


def presign(
    credentials: Credentials,
    method: str,
    host: str,
    path: str,
    query: Mapping[str, str],
    now: datetime,
    seconds: int,
) -> str:
    """The query string of a URL that works by itself for ``seconds`` seconds."""
    stamp = now.strftime("%Y%m%dT%H%M%SZ")
    signed = {
        **query,
        "X-Amz-Algorithm": _ALGORITHM,
        "X-Amz-Credential": f"{credentials.access_key}/{_scope(credentials, stamp)}",
        "X-Amz-Date": stamp,
        "X-Amz-Expires": str(seconds),
        "X-Amz-SignedHeaders": "host",
    }
    request = _canonical(method, path, signed, {"host": host}, "host", UNSIGNED)
    return f"{encode_query(signed)}&X-Amz-Signature={_signature(credentials, stamp, request)}"


def _canonical(
    method: str,
    path: str,
    query: Mapping[str, str],
    headers: Mapping[str, str],
    names: str,
    payload_hash: str,
) -> str:
    lines = "".join(f"{name}:{' '.join(headers[name].split())}\n" for name in sorted(headers))
    return "\n".join((method, encode_path(path), encode_query(query), lines, names, payload_hash))


def _scope(credentials: Credentials, stamp: str) -> str:
    return f"{stamp[:8]}/{credentials.region}/s3/aws4_request"


def _signature(credentials: Credentials, stamp: str, request: str) -> str:
    key = f"AWS4{credentials.secret_key}".encode()
    for word in (stamp[:8], credentials.region, "s3", "aws4_request"):
        key = hmac.digest(key, word.encode(), "sha256")
    text = "\n".join(
        (
            _ALGORITHM,
            stamp,
            _scope(credentials, stamp),
            hashlib.sha256(request.encode()).hexdigest(),
        )
    )
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
