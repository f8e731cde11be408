"""The build cache as ``docker buildx du`` and ``prune`` see it: steps, mounts, kept contexts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp

from sampan.buildkit.protocol import control_pb2 as control
from sampan.engine.builds import Builds
from sampan.errors import InvalidParameter
from sampan.wire.image import BuildCache

_SECOND = 1_000_000_000
_FIELDS: dict[str, Callable[[control.UsageRecord], str]] = {
    "id": lambda one: one.ID,
    "parents": lambda one: ";".join(one.Parents),
    "description": lambda one: one.Description,
    "inuse": lambda one: str(one.InUse).lower(),
    "mutable": lambda one: str(one.Mutable).lower(),
    "immutable": lambda one: str(not one.Mutable).lower(),
    "type": lambda one: one.RecordType or "regular",
    "shared": lambda one: str(one.Shared).lower(),
    "private": lambda one: str(not one.Shared).lower(),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheView:
    """The cache of one engine and the contexts that are kept beside it."""

    builds: Builds

    async def records(self, filters: list[str], age: int = 0) -> list[control.UsageRecord]:
        """The records that pass a filter, least recently used first.

        ``filters`` are alternatives of comma-separated conditions (``type==regular``,
        ``description~=RUN``); ``age`` nanoseconds without use. Raises InvalidParameter.
        """
        latest = time.time() - age / _SECOND if age else None
        found = [_usage(one) for one in await self.builds.usage()]
        return [
            one
            for one in sorted(found, key=lambda one: (one.LastUsedAt.seconds, one.ID))
            if passes(one, filters) and (latest is None or one.LastUsedAt.seconds <= latest)
        ]

    async def prune(self, request: control.PruneRequest) -> list[control.UsageRecord]:
        """Remove what the request names; what was removed, with its size.

        ``keepDuration`` spares what was used since, ``reservedSpace`` (or ``maxUsedSpace``) bytes
        are kept of what is left.
        """
        records = await self.records(list(request.filter), request.keepDuration)
        keep = max(request.reservedSpace, request.maxUsedSpace)
        total = sum(one.Size for one in await self.records([]))
        removed: list[control.UsageRecord] = []
        for one in records:
            if keep and total <= keep:
                break
            if one.InUse or not await self._remove(one):
                continue
            total -= one.Size
            removed.append(one)
        return removed

    async def _remove(self, one: control.UsageRecord) -> bool:
        report = await self.builds.prune({"id": [one.ID]})
        return bool(report.caches_deleted)


def passes(one: control.UsageRecord, filters: Iterable[str]) -> bool:
    """Whether a record passes any of the filters (there may be none)."""
    alternatives = [text for text in filters if text]
    return not alternatives or any(
        all(_holds(one, part.strip()) for part in text.split(",")) for text in alternatives
    )


def _holds(one: control.UsageRecord, condition: str) -> bool:
    for operator in ("==", "!=", "~="):
        name, found, value = condition.partition(operator)
        if found:
            break
    else:
        name, operator, value = condition, "==", "true"
    if name not in _FIELDS:
        raise InvalidParameter(f"invalid filter {condition!r}: no field {name!r}")
    actual = _FIELDS[name](one)
    match operator:
        case "==":
            return actual == value
        case "!=":
            return actual != value
    return value in actual


def _usage(one: BuildCache) -> control.UsageRecord:
    return control.UsageRecord(
        ID=one.id or "",
        Size=one.size or 0,
        Parents=one.parents or [],
        Description=one.description or "",
        RecordType=one.type or "regular",
        Mutable=one.type in ("source.local", "exec.cachemount"),
        InUse=bool(one.in_use),
        Shared=bool(one.shared),
        UsageCount=one.usage_count or 0,
        CreatedAt=_moment(one.created_at),
        LastUsedAt=_moment(one.last_used_at),
    )


def _moment(text: str | None) -> Timestamp:
    found = Timestamp()
    if text:
        found.FromJsonString(text)
    return found
