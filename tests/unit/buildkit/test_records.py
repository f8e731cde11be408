"""Records of builds: which are kept, which a client hears of, what a power failure leaves."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sampan.build.retention import MOST, Retention, expired, parse
from sampan.buildkit.protocol import control_pb2 as control
from sampan.buildkit.recordfilter import chosen
from sampan.buildkit.recording import started
from sampan.buildkit.records import BACKLOG, Document, Records
from sampan.buildkit.status import now
from sampan.engine.threads import Threads
from sampan.errors import InvalidParameter, NotFound, Unavailable

HOUR = 3600


def record(ref: str, begun: int = 0, took: int = 0, **fields: object) -> control.BuildHistoryRecord:
    """A build that began ``begun`` seconds ago and is over when ``took`` says so."""
    found = control.BuildHistoryRecord(Ref=ref, **fields)  # type: ignore[arg-type]
    found.CreatedAt.CopyFrom(now())
    found.CreatedAt.seconds -= begun
    if took:
        found.CompletedAt.CopyFrom(found.CreatedAt)
        found.CompletedAt.seconds += took
    return found


def past() -> tuple[control.BuildHistoryRecord, ...]:
    """Three builds, as seen now."""
    return (
        record("foo123", 24 * HOUR, 60),
        record("bar456", 23 * HOUR - 60, FrontendAttrs={"context": "https://a.test/r.git#abc"}),
        record("foo789", 22 * HOUR, 600, FrontendAttrs={"vcs:source": "testrepo"}),
    )


@pytest.mark.parametrize(
    ("filters", "limit", "expected"),
    [
        ([], 0, ["foo123", "bar456", "foo789"]),
        ([], 2, ["foo789", "bar456"]),
        (["ref==foo"], 0, []),
        (["ref~=foo"], 0, ["foo123", "foo789"]),
        (["repository!=testrepo"], 0, ["foo123", "bar456"]),
        (["repository==https://a.test/r.git"], 0, ["bar456"]),
        (["repository!=testrepo,ref~=foo"], 0, ["foo123"]),
        (["completedAt>23h"], 0, ["foo789"]),
        (["startedAt<23h"], 0, ["foo123"]),
        (["duration>5m"], 0, ["foo789"]),
        (["duration>5m", "ref==foo123"], 0, ["foo123", "foo789"]),
        (["status==running"], 0, ["bar456"]),
        (["status==completed", "startedAt>2001-01-01T00:00:00Z"], 1, ["foo789"]),
    ],
)
def test_filters(filters: list[str], limit: int, expected: list[str]) -> None:
    assert [one.Ref for one in chosen(past(), filters, limit)] == expected


@pytest.mark.parametrize(
    "text", ["ref+foo", "size==1", "startedAt>soon", "duration>x", "ref~=(a+)+$", "startedAt=1h"]
)
def test_filters_that_are_none(text: str) -> None:
    with pytest.raises(InvalidParameter):
        chosen(past(), [text], 0)
    with pytest.raises(InvalidParameter):
        chosen(past(), [], -1)


def test_what_is_kept() -> None:
    bounds = Retention(max_age=10, max_entries=2)
    old = [(str(number), float(number)) for number in range(5)]
    assert expired(old, bounds, now=100.0) == ["2", "1", "0"]
    assert expired(old, bounds, now=12.0) == ["1", "0"]
    many = [(str(number), 50.0 + number) for number in range(MOST + 3)]
    assert expired(many, bounds, now=50.0) == ["2", "1", "0"]
    assert parse({"maxAge": "1h30m", "MaxEntries": 3}) == Retention(max_age=5400, max_entries=3)
    assert parse({}).enabled
    assert not parse({"maxEntries": 0}).enabled
    for wrong in ({"maxAge": "soon"}, {"maxEntries": -1}, {"maxEntries": True}, {"other": 1}):
        with pytest.raises(InvalidParameter):
            parse(wrong)


def test_credentials_are_not_recorded() -> None:
    request = control.SolveRequest(
        FrontendAttrs={
            "context": "https://token:x@a.test/r.git",
            "cache-imports": '[{"Type":"gha","Attrs":{"token":"secret","scope":"main"}}]',
            "build-arg:A": "b@c",
        }
    )
    kept = started(request).FrontendAttrs
    assert kept["context"] == "https://a.test/r.git"
    assert kept["cache-imports"] == '[{"Type": "gha", "Attrs": {"scope": "main"}}]'
    assert kept["build-arg:A"] == "b@c"
    request.FrontendAttrs["cache-imports"] = '{"token":"secret"}'
    assert started(request).FrontendAttrs["cache-imports"] == ""


@pytest.fixture
async def threads() -> AsyncIterator[Threads]:
    found = Threads(2)
    yield found
    found.close()


async def listed(records: Records) -> list[str]:
    request = control.BuildHistoryRequest(EarlyExit=True)
    async with records.listening(request) as events:
        return [event.record.Ref async for event in events]


async def test_records_outlive_the_daemon(tmp_path: Path, threads: Threads) -> None:
    bounds = Retention(max_age=HOUR, max_entries=2)
    records = Records(tmp_path / "r", bounds, threads)
    document = Document(data=b"data", media_type="text/plain")
    for number in range(4):
        await records.complete(record(f"old{number}", 9 * HOUR - number, 1), [document])
    assert await listed(records) == ["old2", "old3"]
    await records.pin("old2", True)
    await records.complete(record("young", 5, 1), [])
    await records.complete(record("young", 4, 1), [document])  # the id once more
    await records.complete(record("younger", 3, 1), [])
    assert sorted(await listed(records)) == ["old2", "young", "younger"]

    again = Records(tmp_path / "r", bounds, threads)
    assert sorted(await listed(again)) == ["old2", "young", "younger"]
    assert await again.read(document.digest) == b"data"
    with pytest.raises(NotFound):
        await again.delete("old3")
    with pytest.raises(NotFound):
        await again.pin("old3", True)
    await again.delete("old2")
    await again.delete("young")
    assert await again.read(document.digest) is None
    assert len(list((tmp_path / "r").iterdir())) == 1


async def test_what_is_spoilt_is_left_out(tmp_path: Path, threads: Threads) -> None:
    records = Records(tmp_path / "r", Retention(), threads)
    document = Document(data=b"data", media_type="text/plain")
    await records.complete(record("one", 2, 1), [document])
    (directory,) = (tmp_path / "r").iterdir()
    (directory / document.digest.hex).write_bytes(b"date")
    assert await records.read(document.digest) is None
    (directory / "record").write_bytes(b"\xff")
    (tmp_path / "r" / ".tmp-left").mkdir()
    assert await listed(Records(tmp_path / "r", Retention(), threads)) == []
    assert list((tmp_path / "r").iterdir()) == []


async def test_a_follower_that_sleeps_is_sent_away(tmp_path: Path, threads: Threads) -> None:
    records = Records(tmp_path / "r", Retention(), threads)
    async with records.listening(control.BuildHistoryRequest()) as events:
        for number in range(BACKLOG + 5):
            records.begin(record(str(number)))
        with contextlib.suppress(Unavailable):
            heard = [event.record.Ref async for event in events]
            pytest.fail(f"nobody was sent away: {len(heard)}")
