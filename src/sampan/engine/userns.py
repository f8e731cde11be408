"""User namespace modes of containers and the id maps they mean (pure).

    mode ::= "" | "host" | "private" | "nomap" | "container:" reference
           | "auto"    [ ":" option { "," option } ]    size= uidmapping= gidmapping=
           | "keep-id" [ ":" option { "," option } ]    size= uid= gid=

The words are podman's (podman-run(1), ``--userns``); "" and ``host`` are Docker's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from sampan.errors import InvalidParameter
from sampan.model.idmap import IdMap, Row
from sampan.wire.container import HostConfig

#: ids of a namespace whose mode names no size
DEFAULT_SIZE = 65536
_ID_LIMIT = 1 << 32
_OPTIONS = {
    "auto": ("size", "uidmapping", "gidmapping"),
    "keep-id": ("size", "uid", "gid"),
}


class Kind(StrEnum):
    """What a mode asks for. ``DEFAULT`` is what the daemon does with all containers."""

    DEFAULT = ""
    HOST = "host"
    PRIVATE = "private"
    AUTO = "auto"
    KEEP_ID = "keep-id"
    NOMAP = "nomap"
    CONTAINER = "container"


#: kinds that get a range of ids nobody else has
LEASED = frozenset({Kind.PRIVATE, Kind.AUTO, Kind.KEEP_ID, Kind.NOMAP})


@dataclass(frozen=True, slots=True, kw_only=True)
class Mode:
    """A parsed mode. ``size`` 0 means unsaid; ``uids``, ``gids`` are rows that must be in the map;
    ``uid``, ``gid`` where keep-id puts the user inside; ``container`` whose namespace to join."""

    kind: Kind
    size: int = 0
    uids: tuple[Row, ...] = ()
    gids: tuple[Row, ...] = ()
    uid: int | None = None
    gid: int | None = None
    container: str = ""


@dataclass(frozen=True, slots=True)
class Lease:
    """``size`` ids of the host from ``uid`` and from ``gid`` on, one container's alone."""

    uid: int
    gid: int
    size: int


def parse_mode(text: str) -> Mode:
    """Raises InvalidParameter."""
    word, colon, rest = text.partition(":")
    if word == Kind.CONTAINER:
        if not rest:
            raise _invalid(text)
        return Mode(kind=Kind.CONTAINER, container=rest)
    if word not in set(Kind) or (colon and word not in _OPTIONS):
        raise _invalid(text)
    kind = Kind(word)
    if not colon:
        return Mode(kind=kind)
    size, numbers = 0, dict[str, int]()
    rows: dict[str, list[Row]] = {"uidmapping": [], "gidmapping": []}
    for option in rest.split(","):
        key, _, value = option.partition("=")
        if key not in _OPTIONS[word]:
            raise InvalidParameter(f"invalid user namespace mode: {text}: unknown option {key!r}")
        if key in rows:
            rows[key].append(_row(value, text))
        elif key == "size":
            size = _number(value, text, 1)
        else:
            numbers[key] = _number(value, text)
    return Mode(
        kind=kind,
        size=size,
        uids=tuple(rows["uidmapping"]),
        gids=tuple(rows["gidmapping"]),
        uid=numbers.get("uid"),
        gid=numbers.get("gid"),
    )


def _invalid(text: str) -> InvalidParameter:
    return InvalidParameter(f"invalid user namespace mode: {text}")


def _number(value: str, text: str, minimum: int = 0) -> int:
    if not value.isascii() or not value.isdecimal() or not minimum <= int(value) < _ID_LIMIT:
        raise InvalidParameter(f"invalid user namespace mode: {text}: bad number {value!r}")
    return int(value)


def _row(value: str, text: str) -> Row:
    parts = value.split(":")
    if len(parts) != 3:
        raise InvalidParameter(
            f"invalid user namespace mode: {text}: a mapping is CONTAINER:HOST:SIZE, not {value!r}"
        )
    first, host, count = (_number(part, text) for part in parts)
    if not count:
        raise InvalidParameter(f"invalid user namespace mode: {text}: an empty mapping {value!r}")
    return first, host, count


def check(config: HostConfig, *, remapped: bool) -> None:
    """Refuse what a user namespace rules out, in dockerd's words.

    ``remapped``: the daemon gives every container one.
    """
    mode = parse_mode(config.userns_mode or "")
    if mode.kind is Kind.HOST or (mode.kind is Kind.DEFAULT and not remapped):
        return
    if config.privileged:
        raise InvalidParameter(
            "privileged mode is incompatible with user namespaces.  You must run the container in "
            "the host namespace when running privileged mode"
        )
    if config.network_mode == "host":
        raise InvalidParameter(
            "cannot share the host's network namespace when user namespaces are enabled"
        )
    if config.pid_mode == "host":
        raise InvalidParameter(
            "cannot share the host PID namespace when user namespaces are enabled"
        )
    if mode.kind is Kind.DEFAULT:
        return
    for name, other in (
        ("network", config.network_mode),
        ("PID", config.pid_mode),
        ("IPC", config.ipc_mode),
    ):
        if other and other.startswith("container:") and other != config.userns_mode:
            raise InvalidParameter(
                f"conflicting options: the {name} namespace of a container belongs to that "
                "container's user namespace"
            )


def id_map(mode: Mode, lease: Lease, client: tuple[int, int]) -> IdMap:
    """The ids of a namespace with a range of its own; ``client``: who asked for it.

    Raises InvalidParameter when rows contradict each other.
    """
    uids, gids = mode.uids, mode.gids
    if mode.kind is Kind.KEEP_ID:
        inside = kept(mode, client)
        uids, gids = ((inside[0], client[0], 1),), ((inside[1], client[1], 1),)
    return IdMap(
        _with_rows(lease.uid, lease.size, uids),
        _with_rows(lease.gid, lease.size, gids),
    )


def kept(mode: Mode, client: tuple[int, int]) -> tuple[int, int]:
    """The ids inside that are the client's outside."""
    uid = client[0] if mode.uid is None else mode.uid
    gid = client[1] if mode.gid is None else mode.gid
    return uid, gid


def _with_rows(start: int, size: int, rows: Sequence[Row]) -> tuple[Row, ...]:
    """``size`` ids from ``start`` on, but for those that ``rows`` say something else about."""
    found: list[Row] = []
    position = 0
    for first, host, count in sorted(rows):
        if first < position:
            raise InvalidParameter("user namespace mappings overlap inside the container")
        if host < start + size and start < host + count:
            raise InvalidParameter(
                f"user namespace mapping {first}:{host}:{count} overlaps ids of other containers"
            )
        if position < min(first, size):
            found.append((position, start + position, min(first, size) - position))
        found.append((first, host, count))
        position = first + count
    if position < size:
        found.append((position, start + position, size - position))
    return tuple(found)
