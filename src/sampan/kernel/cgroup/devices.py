"""Device access rules: OCI ``linux.resources.devices`` reduced to one unambiguous policy (pure).

The rules are a sequence, each one changing what came before, as if written to the v1 files
``devices.allow`` and ``devices.deny`` (Documentation/admin-guide/cgroup-v1/devices.rst). They
are first played through here, so that v1 gets the shortest list of writes and v2 gets a BPF
program with the same meaning.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from sampan.errors import InvalidParameter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.model.oci import DeviceRule

Kind = Literal["b", "c"]
WILDCARD = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceException:
    """Devices whose access differs from the default; WILDCARD stands for any number."""

    kind: Kind
    major: int
    minor: int
    access: str

    def line(self) -> str:
        """The form devices.allow and devices.deny take."""
        major = "*" if self.major == WILDCARD else str(self.major)
        minor = "*" if self.minor == WILDCARD else str(self.minor)
        return f"{self.kind} {major}:{minor} {self.access}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicePolicy:
    """Everything is allowed (or denied), but for ``exceptions``, sorted."""

    allow_by_default: bool
    exceptions: tuple[DeviceException, ...]


def _rule(kind: str, major: int | None, minor: int | None, access: str) -> DeviceRule:
    rule: DeviceRule = {"allow": True, "type": kind, "access": access}
    if major is not None:
        rule["major"] = major
    if minor is not None:
        rule["minor"] = minor
    return rule


#: What every container may use whatever its rules say, as runc grants it: mknod of any node
#: (opening it is another matter), the pseudo devices, terminals.
DEFAULT_DEVICES: tuple[DeviceRule, ...] = (
    _rule("c", None, None, "m"),
    _rule("b", None, None, "m"),
    _rule("c", 1, 3, "rwm"),  # /dev/null
    _rule("c", 1, 8, "rwm"),  # /dev/random
    _rule("c", 1, 7, "rwm"),  # /dev/full
    _rule("c", 5, 0, "rwm"),  # /dev/tty
    _rule("c", 1, 5, "rwm"),  # /dev/zero
    _rule("c", 1, 9, "rwm"),  # /dev/urandom
    _rule("c", 136, None, "rwm"),  # /dev/pts/*
    _rule("c", 5, 2, "rwm"),  # /dev/ptmx
)


def policy(rules: Iterable[DeviceRule]) -> DevicePolicy:
    """Play ``rules`` through, starting from "deny all".

    Raises InvalidParameter for an unknown type or access letter, a negative number, or a rule
    that would cut a hole into an earlier one with a wildcard (v1 cannot express that).
    """
    allow, held = False, dict[tuple[Kind, int, int], frozenset[str]]()
    for rule in rules:
        kinds, major, minor, access = _fields(rule)
        if len(kinds) == 2 and (major, minor, access) == (WILDCARD, WILDCARD, frozenset("rwm")):
            # "a" with everything: replaces the default and forgets the exceptions.
            allow, held = rule["allow"], {}
            continue
        for kind in kinds:
            if rule["allow"] == allow:
                _take_back(held, (kind, major, minor), access)
            else:
                key = (kind, major, minor)
                held[key] = held.get(key, frozenset()) | access
    exceptions = tuple(
        DeviceException(
            kind=kind, major=major, minor=minor, access="".join(a for a in "rwm" if a in access)
        )
        for (kind, major, minor), access in sorted(held.items())
    )
    return DevicePolicy(allow_by_default=allow, exceptions=exceptions)


def _fields(rule: DeviceRule) -> tuple[tuple[Kind, ...], int, int, frozenset[str]]:
    kind = rule.get("type") or "a"
    kinds: dict[str, tuple[Kind, ...]] = {"a": ("b", "c"), "b": ("b",), "c": ("c",), "u": ("c",)}
    if kind not in kinds:
        raise InvalidParameter(f"linux.resources.devices: unknown device type {kind!r}")
    numbers: list[int] = []
    for name, number in (("major", rule.get("major")), ("minor", rule.get("minor"))):
        if number is None:
            number = WILDCARD
        if not WILDCARD <= number < 1 << 32:
            raise InvalidParameter(f"linux.resources.devices: invalid {name} number {number}")
        numbers.append(number)
    access = frozenset(rule.get("access") or "rwm")
    if access - set("rwm"):
        raise InvalidParameter(f"linux.resources.devices: invalid access {rule.get('access')!r}")
    return kinds[kind], numbers[0], numbers[1], access


def _take_back(
    held: dict[tuple[Kind, int, int], frozenset[str]],
    key: tuple[Kind, int, int],
    access: frozenset[str],
) -> None:
    """Remove ``access`` from the exceptions that ``key`` covers."""
    kind, major, minor = key
    for other in list(held):
        inside = (
            other[0] == kind and major in (WILDCARD, other[1]) and minor in (WILDCARD, other[2])
        )
        around = (
            other[0] == kind
            and other[1] in (WILDCARD, major)
            and other[2] in (WILDCARD, minor)
            and other != key
        )
        if inside:
            rest = held.pop(other) - access
            if rest:
                held[other] = rest
        elif around and held[other] & access:
            raise InvalidParameter(
                "linux.resources.devices: a rule for single devices cannot take back part of an "
                "earlier rule with a wildcard"
            )
