"""Errors of a remote daemon: the same tree as :mod:`sampan.errors`, marked as the daemon's words.

``except NotFound`` works alike for an embedded and a remote engine; ``except DaemonError`` tells
an answer of the daemon from a fault on this side.
"""

from __future__ import annotations

from sampan.errors import (
    Conflict,
    Forbidden,
    InvalidParameter,
    NotFound,
    NotModified,
    SampanError,
    Unauthorized,
    Unavailable,
    Unsupported,
)


class DaemonError(SampanError):
    """The daemon answered with an error status; the message is the daemon's."""


class DaemonBadRequest(DaemonError, InvalidParameter):
    """400."""


class DaemonUnauthorized(DaemonError, Unauthorized):
    """401."""


class DaemonForbidden(DaemonError, Forbidden):
    """403."""


class DaemonNotFound(DaemonError, NotFound):
    """404."""


class DaemonConflict(DaemonError, Conflict):
    """409."""


class DaemonNotModified(DaemonError, NotModified):
    """304."""


class DaemonUnsupported(DaemonError, Unsupported):
    """501."""


class DaemonUnavailable(DaemonError, Unavailable):
    """503."""


class StreamFailed(DaemonError):
    """A progress stream (pull, push, load, build) ended with an error record."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


class ConnectionFailed(Unavailable):
    """No daemon answers at the endpoint, or the connection broke."""


class ProtocolError(SampanError):
    """The peer does not speak HTTP/1.1 as RFC 9112 says."""


_BY_STATUS: dict[int, type[DaemonError]] = {
    304: DaemonNotModified,
    400: DaemonBadRequest,
    401: DaemonUnauthorized,
    403: DaemonForbidden,
    404: DaemonNotFound,
    409: DaemonConflict,
    501: DaemonUnsupported,
    503: DaemonUnavailable,
}


def from_status(status: int, message: str) -> DaemonError:
    """The error of the tree that stands for an HTTP status."""
    return _BY_STATUS.get(status, DaemonError)(message)
