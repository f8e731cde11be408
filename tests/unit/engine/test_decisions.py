"""The engine's pure decisions: life, restarts, health, recovery, filters, attach."""

from __future__ import annotations

import pytest

from sampan.engine import filters, reconcile, restart
from sampan.engine.attaching import DetachScanner, parse_detach_keys
from sampan.engine.events import matches
from sampan.engine.health import Schedule, Verdict
from sampan.engine.inspecting import human_duration
from sampan.engine.lifecycle import TRANSITIONS, Event, Status, after
from sampan.engine.reconcile import Observed, Row
from sampan.engine.statistics import parse_net_dev, system_cpu
from sampan.errors import Conflict, InvalidParameter
from sampan.wire.hostconfig import RestartPolicy
from sampan.wire.system import EventActor, EventMessage


def test_every_status_can_be_left_by_removal() -> None:
    assert all(Event.REMOVE in events for events in TRANSITIONS.values())
    assert after(Status.RUNNING, Event.EXIT) is Status.EXITED
    with pytest.raises(Conflict, match="cannot pause a container that is created"):
        after(Status.CREATED, Event.PAUSE)


@pytest.mark.parametrize(
    ("name", "limit", "code", "count", "stopped", "again"),
    [
        ("no", 0, 1, 0, False, False),
        ("always", 0, 0, 99, False, True),
        ("always", 0, 0, 0, True, False),
        ("unless-stopped", 0, 0, 0, False, True),
        ("on-failure", 0, 0, 0, False, False),
        ("on-failure", 0, 1, 50, False, True),
        ("on-failure", 2, 1, 1, False, True),
        ("on-failure", 2, 1, 2, False, False),
    ],
)
def test_restart_policy(
    name: str, limit: int, code: int, count: int, stopped: bool, again: bool
) -> None:
    policy = RestartPolicy(name=name, maximum_retry_count=limit)
    found = restart.should_restart(policy, exit_code=code, count=count, stopped_by_user=stopped)
    assert found is again


def test_back_off_grows_and_starts_anew() -> None:
    delays = [restart.FIRST_DELAY]
    for _ in range(12):
        delays.append(restart.next_delay(delays[-1], 0.1))
    assert delays[:4] == [0.1, 0.2, 0.4, 0.8]
    assert delays[-1] == restart.LONGEST_DELAY
    assert restart.next_delay(60.0, 11.0) == restart.FIRST_DELAY


def test_health_verdict() -> None:
    verdict = Verdict(Schedule(retries=2, start_period=10.0, start_interval=1.0))
    assert not verdict.judge(1, 5.0)  # in the start period failures do not count
    assert (verdict.failing_streak, verdict.next_interval(5.0)) == (0, 1.0)
    assert verdict.judge(0, 6.0)
    assert verdict.next_interval(6.0) == 30.0
    assert not verdict.judge(1, 7.0)
    assert verdict.judge(1, 8.0)
    assert (verdict.status, verdict.failing_streak) == ("unhealthy", 2)
    assert verdict.judge(0, 9.0)
    assert (verdict.status, verdict.failing_streak) == ("healthy", 0)


A, B = "a" * 64, "b" * 64


@pytest.mark.parametrize(
    ("row", "observed", "expected"),
    [
        (Row(id=A, status=Status.RUNNING), Observed(monitors={A: "running"}), ["Adopt"]),
        (Row(id=A, status=Status.CREATED), Observed(monitors={A: "running"}), ["Adopt"]),
        (Row(id=A, status=Status.CREATED), Observed(monitors={A: "created"}), ["Abort"]),
        (Row(id=A, status=Status.CREATED), Observed(directories=[A]), ["EraseExec"]),
        (Row(id=A, status=Status.RUNNING), Observed(exits={A: 0}, directories=[A]), ["NoteExit"]),
        (Row(id=A, status=Status.RUNNING, endpoints=1), Observed(), ["NoteExit", "Release"]),
        (Row(id=A, status=Status.CREATED), Observed(exits={A: 3}), ["NoteExit"]),
        (
            Row(id=A, status=Status.RUNNING, auto_remove=True),
            Observed(exits={A: 0}),
            ["NoteExit", "Remove"],
        ),
        (Row(id=A, status=Status.CREATED, auto_remove=True), Observed(), []),
        (Row(id=A, status=Status.REMOVING), Observed(), ["Remove"]),
        (
            Row(id=A, status=Status.RUNNING, policy=RestartPolicy(name="always")),
            Observed(exits={A: 0}),
            ["NoteExit", "Start"],
        ),
        (
            Row(
                id=A,
                status=Status.EXITED,
                policy=RestartPolicy(name="unless-stopped"),
                stopped_by_user=True,
            ),
            Observed(),
            [],
        ),
        (
            Row(
                id=A, status=Status.RESTARTING, policy=RestartPolicy(name="on-failure"), exit_code=1
            ),
            Observed(),
            ["Start"],
        ),
        (
            Row(id=A, status=Status.EXITED),
            Observed(
                monitors={B: "running"},
                directories=[B],
                snapshots=[A, B, f"{A}-image-0", f"{B}-image-0"],
                files=[A, B],
            ),
            ["Abort", "EraseSnapshot", "EraseSnapshot", "EraseFiles"],
        ),
    ],
)
def test_reconcile(row: Row, observed: Observed, expected: list[str]) -> None:
    actions = reconcile.reconcile([row], observed)
    assert [type(action).__name__ for action in actions] == expected


def test_filters() -> None:
    with pytest.raises(InvalidParameter, match="invalid filter 'colour'"):
        filters.check_filters({"colour": ["red"]}, {"name"})
    labels = {"a": "1", "b": ""}
    assert filters.match_labels(labels, {"label": ["a=1", "b"]})
    assert not filters.match_labels(labels, {"label": ["a=2"]})
    assert not filters.match_labels(labels, {"label!": ["b"]})
    assert filters.boolean({"x": ["1"]}, "x") is True
    with pytest.raises(InvalidParameter):
        filters.boolean({"x": ["maybe"]}, "x")
    assert filters.parse_duration("1h30m") == 5400
    assert filters.parse_time("10m", 1000.0) == 400
    assert filters.parse_time("1970-01-01T00:01:00Z", 0) == 60
    for bad in ("soon", "10 minutes", "m"):
        with pytest.raises(InvalidParameter):
            filters.parse_time(bad, 0)


@pytest.mark.parametrize(
    ("wanted", "passes"),
    [
        ({}, True),
        ({"type": ["container"]}, True),
        ({"type": ["image"]}, False),
        ({"event": ["exec_start"]}, True),
        ({"event": ["exec_start: ls"]}, True),
        ({"event": ["start"]}, False),
        ({"container": ["web"]}, True),
        ({"container": ["aaaaaa"]}, True),
        ({"container": ["other"]}, False),
        ({"image": ["busybox"]}, True),
        ({"label": ["tier=front"]}, True),
        ({"label": ["tier=back"]}, False),
    ],
)
def test_event_filters(wanted: dict[str, list[str]], passes: bool) -> None:
    event = EventMessage(
        type="container",
        action="exec_start: ls",
        actor=EventActor(
            id=A, attributes={"name": "web", "image": "busybox:latest", "tier": "front"}
        ),
    )
    assert matches(event, wanted) is passes


def test_detach_keys() -> None:
    assert parse_detach_keys("ctrl-p,ctrl-q") == b"\x10\x11"
    assert parse_detach_keys("a,ctrl-@,ctrl-[") == b"a\x00\x1b"
    for bad in ("ctrl-", "ctrl-1", "ab", "a,"):
        with pytest.raises(InvalidParameter, match="Invalid detach keys"):
            parse_detach_keys(bad)
    scanner = DetachScanner(b"\x10\x11")
    assert scanner.feed(b"ab\x10") == (b"ab", False)
    assert scanner.feed(b"c\x10") == (b"\x10c", False)
    assert scanner.feed(b"\x11rest") == (b"", True)


def test_durations_in_words() -> None:
    for seconds, words in (
        (0.4, "Less than a second"),
        (1.2, "1 second"),
        (59, "59 seconds"),
        (61, "About a minute"),
        (3599, "59 minutes"),
        (3700, "About an hour"),
        (47 * 3600, "47 hours"),
        (3 * 86400, "3 days"),
        (20 * 86400, "2 weeks"),
        (100 * 86400, "3 months"),
        (800 * 86400, "2 years"),
    ):
        assert human_duration(seconds) == words


def test_kernel_counters() -> None:
    assert system_cpu("cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1\n") == 28 * 10_000_000
    header = "Inter-| Receive\n face |bytes\n"
    found = parse_net_dev(f"{header}  eth0: 10 1 0 0 0 0 0 0 20 2 0 0 0 0 0 0\n")
    assert (found["eth0"].rx_bytes, found["eth0"].tx_bytes) == (10, 20)
