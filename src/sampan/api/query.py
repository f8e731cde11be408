"""Query parameters as dockerd reads them (moby daemon/server/httputils/form.go), strictly.

Where dockerd quietly takes a malformed number for 0 these functions refuse it, naming the
parameter: a typing error never widens what a request does.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Collection, Mapping

import msgspec

from sampan.engine.options import RegistryAuth
from sampan.errors import InvalidParameter
from sampan.model.platform import Platform

_FALSE = frozenset({"", "0", "no", "false", "none"})
_TIMESTAMP = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")
_INT64 = 1 << 63


def flag(text: str | None, default: bool = False) -> bool:
    """A switch: anything but empty, ``0``, ``no``, ``false`` and ``none`` is on."""
    return default if text is None else text.strip().lower() not in _FALSE


def integer(name: str, text: str | None, default: int = 0) -> int:
    """A whole number; raises :class:`InvalidParameter` naming the parameter."""
    if not text:
        return default
    try:
        value = int(text)
    except ValueError:
        raise InvalidParameter(f"invalid value for {name}: {text!r} is not a number") from None
    if not -_INT64 <= value < _INT64:
        raise InvalidParameter(f"invalid value for {name}: {text!r} is out of range")
    return value


def timestamp(name: str, text: str | None) -> float:
    """Unix seconds with an optional fraction; 0 when absent."""
    if not text:
        return 0.0
    if not _TIMESTAMP.fullmatch(text):
        raise InvalidParameter(f"invalid value for {name}: {text!r} is not a Unix timestamp")
    value = float(text)
    if not -_INT64 < value < _INT64:
        raise InvalidParameter(f"invalid value for {name}: {text!r} is out of range")
    return value


def filters(text: str | None, known: Collection[str]) -> dict[str, list[str]]:
    """The ``filters`` parameter: ``{"key": ["value"]}`` or the old ``{"key": {"value": true}}``.

    Raises :class:`InvalidParameter` for malformed JSON and for a key not in ``known``.
    """
    if not text:
        return {}
    try:
        raw = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise InvalidParameter(f"invalid filter: {error}") from None
    if not isinstance(raw, Mapping):
        raise InvalidParameter("invalid filter: expected a JSON object of lists")
    result: dict[str, list[str]] = {}
    for key, values in raw.items():
        if key not in known:
            raise InvalidParameter(f"invalid filter '{key}'")
        if isinstance(values, Mapping):
            chosen = [value for value, on in values.items() if on]
        elif isinstance(values, list):
            chosen = values
        else:
            raise InvalidParameter(f"invalid filter '{key}': expected a list of strings")
        if not all(isinstance(value, str) for value in chosen):
            raise InvalidParameter(f"invalid filter '{key}': expected a list of strings")
        result[key] = list(chosen)
    return result


def boolean_filter(chosen: Mapping[str, list[str]], key: str) -> None:
    """Check that a filter that takes true or false has exactly such values."""
    values = chosen.get(key, [])
    if any(value.lower() not in ("1", "true", "0", "false") for value in values):
        raise InvalidParameter(f"invalid filter '{key}=[{' '.join(values)}]'")


def platform(name: str, text: str | None) -> str:
    """An OCI platform in JSON (or ``os/arch/variant``) as ``os/arch/variant``; "" when absent."""
    if not text:
        return ""
    if not text.lstrip().startswith("{"):
        return str(Platform.parse(text))
    try:
        raw = msgspec.json.decode(text, type=dict[str, str | list[str]])
    except msgspec.DecodeError as error:
        raise InvalidParameter(f"failed to parse {name}: {error}") from None
    parts = [raw.get(key, "") for key in ("os", "architecture", "variant")]
    return str(Platform.parse("/".join(str(part) for part in parts if part)))


def registry_auth(text: str | None) -> RegistryAuth | None:
    """The credentials in an ``X-Registry-Auth`` header (base64url JSON), or None.

    A header that has none that can be read is none, as to dockerd: clients that push as nobody
    (aiodocker) write any word into it, since dockerds of old insisted on one.
    """
    if not text:
        return None
    try:
        padded = text.strip().rstrip("=")
        padded += "=" * (-len(padded) % 4)
        raw = msgspec.json.decode(base64.urlsafe_b64decode(padded.translate(_TO_URLSAFE)))
        return None if raw is None else credentials(raw, "X-Registry-Auth header")
    except (binascii.Error, ValueError, InvalidParameter):
        return None


def credentials(raw: object, what: str) -> RegistryAuth:
    """Credentials out of decoded JSON; ``what`` names their source in errors."""
    if not isinstance(raw, Mapping) or not all(
        isinstance(raw.get(key, ""), str | None) for key in _AUTH_FIELDS
    ):
        raise InvalidParameter(f"invalid {what}")
    values = {field: str(raw.get(key) or "") for key, field in _AUTH_FIELDS.items()}
    if encoded := raw.get("auth"):
        values["username"], values["password"] = _split_auth(encoded, what)
    return RegistryAuth(**values)


def _split_auth(encoded: object, what: str) -> tuple[str, str]:
    try:
        text = base64.b64decode(str(encoded), validate=True).decode()
    except (binascii.Error, ValueError):
        raise InvalidParameter(f"invalid {what}") from None
    username, _, password = text.partition(":")
    return username, password.rstrip("\0")


_TO_URLSAFE = str.maketrans("+/", "-_")
_AUTH_FIELDS = {
    "username": "username",
    "password": "password",
    "serveraddress": "server_address",
    "identitytoken": "identity_token",
    "registrytoken": "registry_token",
}
