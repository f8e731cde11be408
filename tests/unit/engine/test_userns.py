"""Modes of user namespaces, the maps they mean, and ranges of ids that nobody shares."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.engine import idmapspec, ownership, subids, userns
from sampan.engine.idranges import IdRanges, Pool, default_pool
from sampan.engine.record import MountRecord
from sampan.engine.userns import Kind, Lease
from sampan.errors import Conflict, InvalidParameter
from sampan.model.idmap import IdMap
from sampan.wire.container import HostConfig

LEASE = Lease(100_000, 200_000, 65536)


@pytest.mark.parametrize(
    "text",
    [
        *("bad", "container:", "ns:/x", "host:x", "auto:", "auto:foo=1", "auto:size=0"),
        *("auto:size=x", "auto:uidmapping=1:2", "auto:uidmapping=1:2:0", "keep-id:uid="),
        *("keep-id:uidmapping=0:0:1", "nomap:size=1", "private:size=1"),
    ],
)
def test_refused_modes(text: str) -> None:
    with pytest.raises(InvalidParameter, match="invalid user namespace mode: "):
        userns.parse_mode(text)


def test_modes_and_their_maps() -> None:
    assert userns.parse_mode("").kind is Kind.DEFAULT
    assert userns.parse_mode("container:a:b").container == "a:b"
    auto = userns.parse_mode("auto:size=100,uidmapping=50:1000:10,gidmapping=0:7:1")
    assert auto.size == 100
    lease = Lease(5000, 6000, 100)
    assert userns.id_map(auto, lease, (1, 2)) == IdMap(
        ((0, 5000, 50), (50, 1000, 10), (60, 5060, 40)), ((0, 7, 1), (1, 6001, 99))
    )
    keep = userns.id_map(userns.parse_mode("keep-id"), LEASE, (1234, 70000))
    assert keep.outside(1234, 70000) == (1234, 70000)
    assert keep.outside(0, 0) == (100_000, 200_000)
    assert keep.outside(1235, 65536) is None
    moved = userns.id_map(userns.parse_mode("keep-id:uid=0,gid=5"), LEASE, (1234, 99))
    assert moved.outside(0, 5) == (1234, 99)


@pytest.mark.parametrize(
    "text", ["auto:uidmapping=0:1:10,uidmapping=5:50:1", "auto:uidmapping=0:100001:1"]
)
def test_maps_that_contradict_themselves_or_others(text: str) -> None:
    with pytest.raises(InvalidParameter, match="overlap"):
        userns.id_map(userns.parse_mode(text), LEASE, (0, 0))


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ({"privileged": True}, "privileged mode is incompatible with user namespaces.  You must"),
        ({"network_mode": "host"}, "cannot share the host's network namespace when user"),
        ({"pid_mode": "host"}, "cannot share the host PID namespace when user namespaces are"),
    ],
)
def test_what_a_user_namespace_rules_out(host: dict[str, object], words: str) -> None:
    config = HostConfig(**host)  # type: ignore[arg-type]
    userns.check(config, remapped=False)
    with pytest.raises(InvalidParameter, match=words):
        userns.check(config, remapped=True)
    userns.check(HostConfig(**host, userns_mode="host"), remapped=True)  # type: ignore[arg-type]
    with pytest.raises(InvalidParameter, match=words):
        userns.check(HostConfig(**host, userns_mode="auto"), remapped=False)  # type: ignore[arg-type]


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 400)), max_size=60))
def test_no_two_ranges_overlap(steps: list[tuple[bool, int]]) -> None:
    reserved = IdMap(((0, 1100, 50),), ((0, 1300, 50),))
    ranges = IdRanges(Pool(((1000, 1000), (100, 300)), ((1000, 2000),)), reserved)
    held: dict[str, Lease] = {}
    for number, (taking, size) in enumerate(steps):
        if not taking and held:
            name = sorted(held)[size % len(held)]
            ranges.give(name)
            del held[name]
            continue
        try:
            held[str(number)] = ranges.take(str(number), size)
        except Conflict:
            continue
    for start in ("uid", "gid"):
        spans = sorted((getattr(lease, start), lease.size) for lease in held.values())
        spans.append((1100, 50) if start == "uid" else (1300, 50))
        spans.sort()
        assert all(a + n <= b for (a, n), (b, _) in itertools.pairwise(spans))
    assert all(1000 <= lease.uid < 2000 or 100 <= lease.uid < 400 for lease in held.values())


def test_a_pool_ends() -> None:
    pool = default_pool(Path("/somewhere"))
    assert sum(count for _, count in pool.uids) == 0x7FFE0000 - 0x70000000
    ranges = IdRanges(Pool(((5, 10),), ((5, 10),)), None)
    ranges.take("a", 10)
    with pytest.raises(Conflict, match="no range of 1 unused ids is left"):
        ranges.take("b", 1)
    ranges.give("a")
    assert ranges.take("b", 10) == Lease(5, 5, 10)


def test_subordinate_ids(tmp_path: Path) -> None:
    (tmp_path / "subuid").write_text("# x\ndaemon:300000:10\n1:200000:5\ncontainers:9:1\n")
    (tmp_path / "subgid").write_text("daemon:400000:15\n")
    assert subids.remapping("daemon", tmp_path) == IdMap(
        ((0, 200000, 5), (5, 300000, 10)), ((0, 400000, 15),)
    )
    assert subids.remapping("1:1", tmp_path) == subids.remapping("daemon:daemon", tmp_path)
    assert subids.remapping("root", tmp_path) is None
    assert subids.remapping("", tmp_path) is None
    assert subids.pool(Path("/r"), tmp_path) == default_pool(Path("/r"))
    (tmp_path / "subgid").write_text("containers:70:7\n")
    assert subids.pool(Path("/r"), tmp_path) == Pool(((9, 1),), ((70, 7),))
    for text, words in (
        ("daemon", 'no subgid ranges found for user "daemon"'),
        ("a:b:c", "Invalid user/group specification in --userns-remap"),
        ("nobody-like-this", 'Error during uid lookup for "nobody-like-this"'),
        ("4000000000", "Uid 4000000000 has no entry"),
        ("daemon:no-such-group", 'Error during gid lookup for "no-such-group"'),
    ):
        with pytest.raises(InvalidParameter, match=words):
            subids.remapping(text, tmp_path)
    (tmp_path / "subuid").write_text("daemon:x:1\n")
    with pytest.raises(InvalidParameter, match="invalid line"):
        subids.remapping("daemon", tmp_path)


def test_idmap_options() -> None:
    ids = IdMap(((0, 100_000, 1000),), ((0, 200_000, 1000),))
    idmapspec.check("idmap")
    assert idmapspec.custom("idmap", ids) is None
    text = "idmap=uids=0-5-2#@10-7-1;gids=@1-2-3"
    assert idmapspec.custom(text, ids) == IdMap(((0, 5, 2), (10, 100_007, 1)), ((1, 200_002, 3),))
    for wrong in ("idmap=", "idmap=uids=0-0-1", "idmap=uids=0-0-1;gids=0-0-0", "idmap=x", "idmaps"):
        with pytest.raises(InvalidParameter, match="invalid mount option"):
            idmapspec.check(wrong)
    with pytest.raises(InvalidParameter, match="has no 2 ids in a row from 999 on"):
        idmapspec.custom("idmap=uids=@0-999-2;gids=0-0-1", ids)


def test_owners_on_disk() -> None:
    ids = IdMap(((0, 100_000, 1000),), ((0, 200_000, 1000),))

    def owner(kind: str, idmap: str, ids: IdMap | None) -> tuple[int, int]:
        mount = MountRecord(type=kind, destination="/x", idmap=idmap, chown=True)
        return ownership.owner_on_disk(mount, (5, 6), ids)

    assert owner("bind", "", None) == (5, 6)
    assert owner("bind", "", ids) == (100_005, 200_006)
    assert owner("bind", "idmap", ids) == (5, 6)
    assert owner("volume", "", ids) == (5, 6)
    assert owner("bind", "idmap=uids=@50-0-9;gids=0-0-9", ids) == (
        55,
        65534,
    )
    with pytest.raises(InvalidParameter, match="5:6 is not in the container's user namespace"):
        owner("bind", "", IdMap(((0, 9, 1),), ((0, 9, 1),)))
    for path in ("/", "/etc", "/usr/../etc"):
        with pytest.raises(InvalidParameter, match="is not allowed"):
            ownership.check([MountRecord(type="bind", destination="/x", source=path, chown=True)])
