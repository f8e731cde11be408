"""Policies of the build cache: daemon.json's forms, and what they choose."""

from __future__ import annotations

import pytest

from sampan.build.gcpolicy import Entry, Policy, Settings, choose, matches, parse
from sampan.errors import InvalidParameter

GB, DAY = 1 << 30, 86_400
NOW = 100 * DAY


def entry(name: str, size: int, days: float, kind: str = "regular", in_use: bool = False) -> Entry:
    return Entry(id=name, kind=kind, size=size, used=int(NOW - days * DAY), in_use=in_use)


def names(entries: list[Entry], *policies: Policy, free: int = 1000 * GB) -> list[str]:
    return [one.id for one in choose(entries, policies, now=NOW, free=free)]


ENTRIES = [
    entry("old", 4 * GB, 70),
    entry("context", 1 * GB, 3, "source.local"),
    entry("mount", 1 * GB, 1, "exec.cachemount"),
    entry("new", 4 * GB, 0.5),
    entry("busy", 4 * GB, 80, in_use=True),
]


def test_what_policies_choose() -> None:
    assert names(ENTRIES, Policy(max_used=14 * GB)) == []
    assert names(ENTRIES, Policy(max_used=10 * GB)) == ["old"]
    assert names(ENTRIES, Policy(max_used=9 * GB)) == ["old", "context"]
    assert names(ENTRIES, Policy(reserved=12 * GB)) == ["old"]
    assert names(ENTRIES, Policy(min_free=6 * GB), free=3 * GB) == ["old"]
    assert names(ENTRIES, Policy(min_free=50 * GB, reserved=13 * GB), free=3 * GB) == ["old"]
    assert names(ENTRIES, Policy(keep_duration=2 * DAY)) == ["old", "context"]
    assert names(ENTRIES, Policy()) == ["old", "context", "mount", "new"]
    cheap = Policy(filters=("type==source.local", "type==exec.cachemount"), max_used=1)
    assert names(ENTRIES, cheap) == ["context", "mount"]
    assert names(ENTRIES, cheap, Policy(max_used=8 * GB)) == ["context", "mount", "old"]


def test_default_policies_follow_the_disk() -> None:
    first, second, third = Settings().rules(100 * GB)
    assert (first.keep_duration, first.max_used) == (2 * DAY, 512 << 20)
    assert second.keep_duration == 60 * DAY
    assert (third.reserved, third.max_used, third.min_free) == (10 * GB, 60 * GB, 20 * GB)


def test_daemon_json() -> None:
    found = parse(
        {
            "enabled": True,
            "defaultKeepStorage": "20GB",
            "policy": [
                {"keepStorage": "1GB", "filter": ["unused-for=48h", "type=source.local"]},
                {"reservedSpace": "10%", "maxUsedSpace": 5, "keepDuration": "1h30m", "all": True},
            ],
        },
        100 * GB,
    )
    assert found.limits.reserved == 20 * GB
    assert found.policies == (
        Policy(filters=("type==source.local",), keep_duration=2 * DAY, reserved=GB),
        Policy(reserved=10 * GB, max_used=5, keep_duration=5400),
    )
    for bad in ({"x": 1}, {"enabled": 1}, {"policy": [{"keepStorage": "many"}]}, {"policy": [1]}):
        with pytest.raises(InvalidParameter, match=r"builder\.gc"):
            parse(bad, GB)


def test_filters() -> None:
    one = entry("abc", 1, 0, "source.local")
    assert matches(one, ("type==regular", "type==source.local,id~=b"))
    assert matches(one, ("type!=regular,inuse==false",))
    assert not matches(one, ("id==ab",))
    for bad in ("type", "size==1"):
        with pytest.raises(InvalidParameter):
            matches(one, (bad,))
