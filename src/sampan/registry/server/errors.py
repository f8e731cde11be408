"""Errors of the distribution API (OCI distribution spec, "Error Codes").

Every refusal the server makes is a :class:`ProtocolError`: the code of the specification's table,
the HTTP status, and headers the status needs. One place turns it into the JSON body.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from sampan.errors import SampanError

Detail = Mapping[str, str | int] | None


class Code(StrEnum):
    """The ``code`` values the specification allows."""

    BLOB_UNKNOWN = "BLOB_UNKNOWN"
    BLOB_UPLOAD_INVALID = "BLOB_UPLOAD_INVALID"
    BLOB_UPLOAD_UNKNOWN = "BLOB_UPLOAD_UNKNOWN"
    DIGEST_INVALID = "DIGEST_INVALID"
    MANIFEST_BLOB_UNKNOWN = "MANIFEST_BLOB_UNKNOWN"
    MANIFEST_INVALID = "MANIFEST_INVALID"
    MANIFEST_UNKNOWN = "MANIFEST_UNKNOWN"
    NAME_INVALID = "NAME_INVALID"
    NAME_UNKNOWN = "NAME_UNKNOWN"
    SIZE_INVALID = "SIZE_INVALID"
    UNAUTHORIZED = "UNAUTHORIZED"
    DENIED = "DENIED"
    UNSUPPORTED = "UNSUPPORTED"
    TOOMANYREQUESTS = "TOOMANYREQUESTS"


#: The status a code is answered with when the raiser names none.
STATUS: Mapping[Code, int] = {
    Code.BLOB_UNKNOWN: 404,
    Code.BLOB_UPLOAD_INVALID: 400,
    Code.BLOB_UPLOAD_UNKNOWN: 404,
    Code.DIGEST_INVALID: 400,
    Code.MANIFEST_BLOB_UNKNOWN: 404,
    Code.MANIFEST_INVALID: 400,
    Code.MANIFEST_UNKNOWN: 404,
    Code.NAME_INVALID: 400,
    Code.NAME_UNKNOWN: 404,
    Code.SIZE_INVALID: 400,
    Code.UNAUTHORIZED: 401,
    Code.DENIED: 403,
    Code.UNSUPPORTED: 405,
    Code.TOOMANYREQUESTS: 429,
}


class ProtocolError(SampanError):
    """A request the registry refuses.

    ``code`` is the specification's; ``status`` defaults to the one :data:`STATUS` gives it;
    ``headers`` are sent along (``WWW-Authenticate``, ``Range``, ``Allow``).
    """

    def __init__(
        self,
        code: Code,
        message: str,
        *,
        status: int = 0,
        detail: Detail = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status = status or STATUS[code]
        self.detail = detail
        self.headers = dict(headers or {})

    def body(self) -> bytes:
        """The JSON document the specification prescribes."""
        return msgspec.json.encode(
            {"errors": [{"code": self.code, "message": self.message, "detail": self.detail}]}
        )
