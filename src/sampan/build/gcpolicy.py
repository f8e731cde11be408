"""What of the build cache may go, and when: policies as BuildKit's and Docker's daemon.json have
them (pure).

Policies are applied in order. Each chooses among what its filters match and what has not been used
for ``keep_duration``; of that the least recently used goes first, until all of the cache fits
``max_used``, or ``min_free`` bytes of the disk are free, but never below ``reserved``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sampan.errors import InvalidParameter

_GIB = 1 << 30
#: What is made again most easily (BuildKit's default policy).
_CHEAP = ("type==source.local", "type==exec.cachemount", "type==source.git.checkout")
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([kmgt]?)(i?)b?", re.IGNORECASE)
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)")
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Something the cache holds. ``size`` in bytes, ``used`` in seconds since the epoch."""

    id: str
    kind: str
    size: int
    used: int
    description: str = ""
    in_use: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """One rule. Sizes in bytes, 0 is no limit; ``filters`` are alternatives (none: everything).

    A policy without any limit removes all it matches.
    """

    filters: tuple[str, ...] = ()
    keep_duration: float = 0
    reserved: int = 0
    max_used: int = 0
    min_free: int = 0

    @property
    def limited(self) -> bool:
        """Whether anything bounds what is removed."""
        return bool(self.reserved or self.max_used or self.min_free)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The sizes default policies are made with."""

    reserved: int = 0
    max_used: int = 0
    min_free: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Garbage collection of one engine. Without ``policies`` the default ones are made with
    ``limits``, which, where they are 0, depend on the disk."""

    enabled: bool = True
    policies: tuple[Policy, ...] = ()
    limits: Limits = Limits()

    def rules(self, disk: int) -> tuple[Policy, ...]:
        """The policies for a disk of ``disk`` bytes."""
        if self.policies:
            return self.policies
        limits = self.limits
        if not (limits.reserved or limits.max_used or limits.min_free):
            limits = Limits(
                reserved=min(disk // 10, 10 * _GIB), max_used=disk * 6 // 10, min_free=disk // 5
            )
        rest = Policy(reserved=limits.reserved, max_used=limits.max_used, min_free=limits.min_free)
        return (
            Policy(filters=_CHEAP, keep_duration=48 * 3600, max_used=512 << 20),
            replace(rest, keep_duration=60 * 24 * 3600),
            rest,
        )


def choose(
    entries: Sequence[Entry], policies: Sequence[Policy], *, now: float, free: int
) -> list[Entry]:
    """What is to be removed; ``free`` bytes of the disk are free."""
    chosen: dict[str, Entry] = {}
    total = sum(one.size for one in entries)
    for policy in policies:
        for one in sorted(entries, key=lambda one: (one.used, one.id)):
            if policy.limited and total <= target(policy, total, free):
                break
            if one.id in chosen or one.in_use or not matches(one, policy.filters):
                continue
            if policy.keep_duration and one.used > now - policy.keep_duration:
                continue
            chosen[one.id] = one
            total -= one.size
            free += one.size
    return list(chosen.values())


def target(policy: Policy, total: int, free: int) -> int:
    """How large the cache may be under a policy."""
    bound = policy.max_used or total
    if policy.min_free and free < policy.min_free:
        bound = min(bound, total - (policy.min_free - free))
    elif not policy.max_used and not policy.min_free:
        bound = policy.reserved
    return max(bound, policy.reserved)


def matches(one: Entry, filters: Sequence[str]) -> bool:
    """Whether any filter (conditions joined by commas) fits; there may be none.

    Raises InvalidParameter for one that is none.
    """
    return not filters or any(
        all(_holds(one, condition) for condition in text.split(",")) for text in filters
    )


def _holds(one: Entry, condition: str) -> bool:
    found = re.fullmatch(r"\s*([a-z]+)(==|!=|~=)(.*)", condition)
    if found is None:
        raise InvalidParameter(f"invalid filter {condition!r} of the build cache")
    name, operator, value = found.groups()
    values = {
        "id": one.id,
        "type": one.kind,
        "description": one.description,
        "inuse": str(one.in_use).lower(),
    }
    if name not in values:
        raise InvalidParameter(f"invalid filter {condition!r} of the build cache: no {name!r}")
    actual = values[name]
    if operator == "~=":
        return re.search(re.escape(value), actual) is not None
    return (actual == value) is (operator == "==")


def parse(document: Mapping[str, object], disk: int) -> Settings:
    """daemon.json's ``builder.gc`` for a disk of ``disk`` bytes (percentages are of that).

    Raises InvalidParameter naming the key.
    """
    known = {
        *("enabled", "policy", "defaultKeepStorage", "defaultReservedSpace"),
        *("defaultMaxUsedSpace", "defaultMinFreeSpace"),
    }
    for key in document:
        if key not in known:
            raise InvalidParameter(f"builder.gc: unknown key {key!r}")
    enabled = document.get("enabled", True)
    if not isinstance(enabled, bool):
        raise InvalidParameter("builder.gc.enabled: expected true or false")
    rules = document.get("policy") or []
    if not isinstance(rules, list):
        raise InvalidParameter("builder.gc.policy: expected a list")
    kept = document.get("defaultReservedSpace", document.get("defaultKeepStorage"))
    return Settings(
        enabled=enabled,
        policies=tuple(_policy(rule, disk) for rule in rules),
        limits=Limits(
            reserved=_size(kept, disk),
            max_used=_size(document.get("defaultMaxUsedSpace"), disk),
            min_free=_size(document.get("defaultMinFreeSpace"), disk),
        ),
    )


def _policy(rule: object, disk: int) -> Policy:
    if not isinstance(rule, dict):
        raise InvalidParameter("builder.gc.policy: expected objects")
    known = {"all", "filter", "keepStorage", "reservedSpace", "maxUsedSpace", "minFreeSpace"}
    for key in rule:
        if key not in known | {"keepDuration"}:
            raise InvalidParameter(f"builder.gc.policy: unknown key {key!r}")
    given = rule.get("filter") or []
    texts = list(given) if isinstance(given, list) else [given]
    filters = []
    unused = duration(rule.get("keepDuration", 0))
    for text in texts:
        key, _, value = str(text).partition("=")
        if key in ("unused-for", "until"):
            unused = duration(value.removeprefix("="))
        else:
            filters.append(str(text) if "==" in str(text) else f"{key}=={value}")
    return Policy(
        filters=tuple(filters),
        keep_duration=unused,
        reserved=_size(rule.get("reservedSpace", rule.get("keepStorage")), disk),
        max_used=_size(rule.get("maxUsedSpace"), disk),
        min_free=_size(rule.get("minFreeSpace"), disk),
    )


def _size(value: object, disk: int) -> int:
    """Bytes: a number, ``10GB``, or ``20%`` of the disk."""
    if value is None:
        return 0
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    text = str(value).strip()
    if text.endswith("%") and text[:-1].isdecimal():
        return disk * int(text[:-1]) // 100
    found = _SIZE.fullmatch(text)
    if found is None:
        raise InvalidParameter(f"builder.gc: invalid size {value!r}")
    return int(float(found[1]) * 1024 ** " kmgt".index(found[2].lower() or " "))


def duration(value: object, where: str = "builder.gc") -> float:
    """Seconds: a number of them, or Go's ``48h30m``. Raises InvalidParameter naming ``where``."""
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    text = str(value)
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise InvalidParameter(f"{where}: invalid duration {value!r}")
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)
