"""``RUN --mount=...`` (spec/dockerfile/reference.md, "RUN --mount")."""

from __future__ import annotations

import csv
import posixpath
from collections.abc import Callable
from dataclasses import dataclass

from sampan.dockerfile.parser import DockerfileError
from sampan.dockerfile.suggest import hint

_UNITS = {"b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
#: Keys each type accepts, besides ``type`` and the spellings of ``target``.
_KEYS = {
    "bind": {"source", "from", "rw", "ro"},
    "cache": {"id", "ro", "rw", "sharing", "from", "source", "mode", "uid", "gid"},
    "tmpfs": {"size"},
    "secret": {"id", "required", "mode", "uid", "gid", "env"},
    "ssh": {"id", "required", "mode", "uid", "gid"},
}
_SPELLINGS = {
    "src": "source",
    "dst": "target",
    "destination": "target",
    "readonly": "ro",
    "readwrite": "rw",
}
_EXPANDED = {"type", "source", "target", "id", "mode", "uid", "gid", "env"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunMount:
    """One mount of a RUN step. ``mode`` is octal permission bits; ``size`` bytes."""

    type: str
    target: str = ""
    source: str = ""
    from_: str = ""
    id: str = ""
    sharing: str = "shared"
    read_only: bool = False
    required: bool = False
    mode: int | None = None
    uid: int = 0
    gid: int = 0
    size: int = 0
    env: str = ""


def parse_run_mount(text: str, expand: Callable[[str], str]) -> RunMount:
    """The mount that the flag's value describes; ``expand`` replaces variables in values.

    Raises :class:`DockerfileError` naming the key that is wrong.
    """
    try:
        fields = next(csv.reader([text]), [])
    except csv.Error as error:
        raise DockerfileError(f"invalid mount {text!r}: {error}") from None
    values: dict[str, str] = {}
    for field in fields:
        key, equals, value = field.partition("=")
        key = _SPELLINGS.get(key.strip().lower(), key.strip().lower())
        if not equals:
            if key not in ("ro", "rw", "required"):
                raise DockerfileError(f"invalid field '{field}' must be a key=value pair")
            value = "true"
        values[key] = expand(value) if key in _EXPANDED else value
        if key == "from" and expand(value) != value:
            raise DockerfileError(
                "'from' doesn't support variable expansion, define alias stage instead"
            )
    kind = values.pop("type", "bind").lower()
    allowed = _KEYS.get(kind)
    if allowed is None:
        raise DockerfileError(f'unsupported mount type "{kind}"{hint(kind, _KEYS)}')
    for key in values:
        if key != "target" and key not in allowed:
            like = hint(key, ("type", "target", *sorted(allowed)))
            raise DockerfileError(f"unexpected key '{key}' for mount type '{kind}'{like}")
    return _mount(kind, values)


def _mount(kind: str, values: dict[str, str]) -> RunMount:
    target = values.get("target", "")
    identity = values.get("id", "")
    read_only = _boolean("ro", values.get("ro", "false"))
    if kind == "bind":
        read_only = _boolean("ro", values.get("ro", "true"))
        if "rw" in values:
            read_only = not _boolean("rw", values["rw"])
    if kind == "secret":
        identity = identity or posixpath.basename(target)
        if not identity:
            raise DockerfileError("empty secret id")
        if not target and not values.get("env"):
            target = f"/run/secrets/{identity}"
    elif kind == "ssh":
        identity = identity or "default"
    elif not target:
        raise DockerfileError(f'target is required for mount type "{kind}"')
    sharing = values.get("sharing", "shared")
    if sharing not in ("shared", "private", "locked"):
        like = hint(sharing, ("shared", "private", "locked"))
        raise DockerfileError(f'unsupported sharing value "{sharing}"{like}')
    return RunMount(
        type=kind,
        target=target,
        source=values.get("source", ""),
        from_=values.get("from", ""),
        id=identity or (target if kind == "cache" else ""),
        sharing=sharing,
        read_only=read_only,
        required=_boolean("required", values.get("required", "false")),
        mode=_octal(values["mode"]) if "mode" in values else None,
        uid=_number("uid", values.get("uid", "0")),
        gid=_number("gid", values.get("gid", "0")),
        size=_bytes(values["size"]) if "size" in values else 0,
        env=values.get("env", ""),
    )


def _boolean(key: str, value: str) -> bool:
    match value.lower():
        case "true" | "1":
            return True
        case "false" | "0":
            return False
    raise DockerfileError(f"invalid value for {key}: {value!r}")


def _octal(value: str) -> int:
    try:
        mode = int(value, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o7777:
        raise DockerfileError(f"invalid value {value!r} for mode")
    return mode


def _number(key: str, value: str) -> int:
    if not value.isdecimal() or len(value) > 10 or int(value) >= 1 << 32:
        raise DockerfileError(f"invalid value {value!r} for {key}")
    return int(value)


def _bytes(value: str) -> int:
    text = value.lower().removesuffix("ib").removesuffix("b") or value
    unit = _UNITS.get(text[-1:], 0)
    number = text[:-1] if unit else text
    try:
        size = int(float(number) * (unit or 1))
    except (ValueError, OverflowError):
        size = -1
    if size < 0:
        raise DockerfileError(f"invalid value {value!r} for size")
    return size
