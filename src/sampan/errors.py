"""One tree of errors; each class carries the HTTP status and exit code it becomes at the edge.

A message is one sentence for a person, naming the thing that was wrong. Packages translate
``OSError`` at their edges into one of these; nothing matches on messages.
"""

from __future__ import annotations

import errno
from typing import ClassVar


class SampanError(Exception):
    """Base of every error sampan raises on purpose.

    ``http_status`` is the status the Docker Engine API answers with; ``exit_code`` is what a
    command line ends with.
    """

    http_status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1
    #: First and last line of the Dockerfile's instruction that failed, where it was one.
    lines: tuple[int, int] | None = None
    #: What the other side itself said, where the error tells of its refusal.
    quoted: str | None = None

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidParameter(SampanError):
    """The caller's input is wrong (400)."""

    http_status = 400
    exit_code = 125


class Unauthorized(SampanError):
    """Credentials are missing or wrong (401)."""

    http_status = 401


class Forbidden(SampanError):
    """The caller may not do this (403)."""

    http_status = 403


class NotFound(SampanError):
    """The named thing does not exist (404)."""

    http_status = 404
    exit_code = 125


class Conflict(SampanError):
    """The request does not fit the present state, or a name is taken (409)."""

    http_status = 409
    exit_code = 125


class NotModified(SampanError):
    """Nothing to do: already in the wanted state (304)."""

    http_status = 304
    exit_code = 0


class Unsupported(SampanError):
    """Understood, but this kernel, host or engine cannot do it (501)."""

    http_status = 501
    exit_code = 125


class Unavailable(SampanError):
    """A needed service does not answer now (503)."""

    http_status = 503
    exit_code = 125


class Unreachable(Unavailable):
    """Another host does not answer (500, as dockerd answers: 503 is tried again without end)."""

    http_status = 500


class NoSpace(SampanError):
    """The disk, a quota or an address pool is full (500, as dockerd answers)."""

    exit_code = 125


class Corrupt(SampanError):
    """Stored or received data is not what its digest or format says (500)."""


class ArchiveRefused(InvalidParameter):
    """An archive is malformed or would leave its destination (400)."""


class DigestMismatch(InvalidParameter):
    """Bytes do not have the digest they were announced under (400)."""


class StartFailed(SampanError):
    """A container's set-up failed: the message names operation, object and errno."""

    exit_code = 125


class CommandNotFound(StartFailed):
    """The program does not exist in the container (exit code 127)."""

    http_status = 400
    exit_code = 127


class CommandNotExecutable(StartFailed):
    """The program exists but cannot be executed (exit code 126)."""

    http_status = 400
    exit_code = 126


def storage_error(error: OSError, doing: str) -> SampanError:
    """The domain error for a failed disk operation: NoSpace for a full disk or quota.

    ``doing`` is a clause in the present participle ("writing the layer").
    """
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace(f"no space left on device while {doing}")
    return SampanError(f"{error.strerror or error} while {doing}")
