"""API versions: ``/v1.24`` up to ``/v1.55``, negotiated by the path's prefix."""

from __future__ import annotations

from typing import NamedTuple

from sampan.errors import InvalidParameter


class ApiVersion(NamedTuple):
    """A version of the Docker Engine API; compares as numbers, not as text."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


MINIMUM = ApiVersion(1, 24)
CURRENT = ApiVersion(1, 55)


def parse(text: str) -> ApiVersion:
    """``1.41`` as a version; raises :class:`InvalidParameter`."""
    major, _, minor = text.partition(".")
    if not (major.isdecimal() and (minor.isdecimal() or not minor) and len(text) <= 16):
        raise InvalidParameter(f"invalid API version: {text!r}")
    return ApiVersion(int(major), int(minor or 0))


class TooOld(InvalidParameter):
    """A version nobody speaks any more; whoever asks for it reads errors as plain text."""


def negotiate(text: str) -> ApiVersion:
    """The version a path asks for, if this daemon speaks it.

    Raises :class:`InvalidParameter` in dockerd's words, which clients show to people.
    """
    version = parse(text)
    if version < MINIMUM:
        raise TooOld(
            f"client version {text} is too old. Minimum supported API version is {MINIMUM}, "
            "please upgrade your client to a newer version"
        )
    if version > CURRENT:
        raise InvalidParameter(
            f"client version {text} is too new. Maximum supported API version is {CURRENT}"
        )
    return version
