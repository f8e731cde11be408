"""How values go into requests: credentials, filters, times, headers."""

from __future__ import annotations

import base64
from collections.abc import Mapping

import msgspec

from sampan.errors import SampanError
from sampan.wire.options import Filters, PathStat, RegistryAuth


class _PathStat(msgspec.Struct):
    name: str = ""
    size: int = 0
    mode: int = 0
    mtime: str = ""
    link_target: str = msgspec.field(name="linkTarget", default="")


def filters(chosen: Filters | None) -> dict[str, list[str]]:
    """Filters as a query takes them."""
    return {name: list(values) for name, values in (chosen or {}).items()}


def auth_headers(auth: RegistryAuth | None) -> dict[str, str]:
    """``X-Registry-Auth``: URL-safe base64 of JSON."""
    members = {
        "username": auth.username,
        "password": auth.password,
        "serveraddress": auth.server_address,
        "identitytoken": auth.identity_token,
        "registrytoken": auth.registry_token,
    } if auth else {}  # fmt: skip
    document = msgspec.json.encode({name: value for name, value in members.items() if value})
    return {"X-Registry-Auth": base64.urlsafe_b64encode(document).decode()}


def seconds(instant: float) -> str:
    """A Unix time with nanoseconds; ``""`` for 0, which is no bound."""
    return f"{instant:.9f}" if instant else ""


def path_stat(headers: Mapping[str, str]) -> PathStat:
    """The header of the archive endpoints. Raises :class:`SampanError` when it is malformed."""
    raw = headers.get("x-docker-container-path-stat", "")
    try:
        found = msgspec.json.decode(base64.b64decode(raw), type=_PathStat)
    except (ValueError, msgspec.MsgspecError) as error:
        raise SampanError("the daemon did not tell what the path is") from error
    return PathStat(
        name=found.name,
        size=found.size,
        mode=found.mode,
        mtime=found.mtime,
        link_target=found.link_target,
    )
