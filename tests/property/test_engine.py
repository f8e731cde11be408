"""Properties of the engine's pure decisions, over anything Hypothesis can think of."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from sampan.engine import mountspec, reconcile
from sampan.engine.attaching import DetachScanner
from sampan.engine.filters import parse_duration
from sampan.engine.lifecycle import ALIVE, Status
from sampan.engine.merge import merge_env, override_env
from sampan.engine.reconcile import Observed, Row
from sampan.errors import InvalidParameter
from sampan.wire.hostconfig import RestartPolicy

IDS = [letter * 64 for letter in "abc"]
policies = st.sampled_from([None, *(RestartPolicy(name=n) for n in ("no", "always", "on-failure"))])
rows = st.lists(
    st.builds(
        Row,
        id=st.sampled_from(IDS),
        status=st.sampled_from(Status),
        auto_remove=st.booleans(),
        policy=policies,
        exit_code=st.integers(0, 3),
        stopped_by_user=st.booleans(),
        endpoints=st.integers(0, 2),
    ),
    unique_by=lambda row: row.id,
)
some = st.lists(st.sampled_from(IDS), unique=True)
worlds = st.builds(
    Observed,
    monitors=st.dictionaries(st.sampled_from(IDS), st.sampled_from(["created", "running"])),
    exits=st.dictionaries(st.sampled_from(IDS), st.integers(0, 3)),
    directories=some,
    snapshots=some,
    files=some,
)


def perform(
    action: reconcile.Action, rows: dict[str, Row], seen: Observed
) -> tuple[dict[str, Row], Observed]:
    """What an action leaves (the model of :mod:`sampan.engine.recovery`)."""

    def without(*fields: str, key: str) -> Observed:
        changes: dict[str, object] = {}
        for field in fields:
            value = getattr(seen, field)
            changes[field] = (
                {k: v for k, v in value.items() if k != key}
                if isinstance(value, dict)
                else [k for k in value if k != key]
            )
        return replace(seen, **changes)  # type: ignore[arg-type]

    match action:
        case reconcile.Adopt(id=name):
            runs = seen.monitors[name] == "running"
            status = Status.RUNNING if runs else rows[name].status
            return rows | {name: replace(rows[name], status=status)}, seen
        case reconcile.Forget(id=name):
            return rows | {name: replace(rows[name], status=Status.CREATED)}, seen
        case reconcile.Abort(id=name):
            return rows, without("monitors", "exits", "directories", key=name)
        case reconcile.NoteExit(id=name):
            row = rows[name]
            status = row.status if row.status in (Status.REMOVING, Status.DEAD) else Status.EXITED
            row = replace(row, status=status, exit_code=seen.exits.get(name, 137))
            return rows | {name: row}, without("exits", "directories", key=name)
        case reconcile.Release(id=name):
            return rows | {name: replace(rows[name], endpoints=0)}, seen
        case reconcile.Remove(id=name):
            left = {key: row for key, row in rows.items() if key != name}
            return left, without("monitors", "exits", "directories", "snapshots", "files", key=name)
        case reconcile.Start(id=name):
            started = replace(rows[name], status=Status.RUNNING)
            return rows | {name: started}, replace(
                seen, monitors={**seen.monitors, name: "running"}
            )
        case reconcile.EraseExec(id=name):
            return rows, without("exits", "directories", key=name)
        case reconcile.EraseSnapshot(key=key):
            return rows, without("snapshots", key=key)
        case reconcile.EraseFiles(id=name):
            return rows, without("files", key=name)


@given(rows=rows, observed=worlds)
def test_one_recovery_is_enough(rows: list[Row], observed: Observed) -> None:
    state = {row.id: row for row in rows}
    for action in reconcile.reconcile(rows, observed):
        state, observed = perform(action, state, observed)
    again = reconcile.reconcile(list(state.values()), observed)
    assert all(isinstance(action, reconcile.Adopt | reconcile.Start) for action in again), again
    for name, row in state.items():
        assert (row.status in ALIVE) == (observed.monitors.get(name) == "running")
    for found in (*observed.snapshots, *observed.files, *observed.directories):
        assert found in state
    assert set(observed.monitors) <= set(state)


@given(data=st.lists(st.binary(max_size=6)), keys=st.binary(min_size=1, max_size=3))
def test_detach_keys_are_found_wherever_they_are_cut(data: list[bytes], keys: bytes) -> None:
    scanner, whole, out = DetachScanner(keys), b"".join(data), b""
    ended = False
    for piece in data:
        passed, ended = scanner.feed(piece)
        out += passed
        if ended:
            break
    assert whole.startswith(out)  # nothing is invented, nothing reordered
    if keys not in whole:
        assert not ended
        assert len(whole) - len(out) < len(keys)
    if ended:
        assert whole[: len(out) + len(keys)] == out + keys


names = st.text("AB", min_size=1, max_size=2)
entries = st.lists(st.builds("{}={}".format, names, st.text("xy", max_size=2)))


@given(user=entries, image=entries)
def test_environment_merges(user: list[str], image: list[str]) -> None:
    merged = merge_env(user, image)
    assert merged[: len(user)] == user
    wanted = dict(e.split("=", 1) for e in image) | dict(e.split("=", 1) for e in user)
    assert dict(e.split("=", 1) for e in override_env([], merged)).keys() == wanted.keys()
    overridden = override_env(image, user)
    assert len({e.split("=")[0] for e in overridden}) == len(overridden)
    assert dict(e.split("=", 1) for e in overridden) == wanted


@given(st.text(":/,abcrow.-", max_size=24))
def test_any_bind_is_understood_or_refused(text: str) -> None:
    try:
        found = mountspec.parse_bind(text)
    except InvalidParameter:
        return
    assert found.destination.startswith("/")
    assert found.destination != "/"
    assert ".." not in found.destination.split("/")
    assert (found.type == "bind") == bool(found.source)


@given(st.integers(0, 99), st.integers(0, 59), st.integers(0, 59))
def test_durations(hours: int, minutes: int, seconds: int) -> None:
    text = f"{hours}h{minutes}m{seconds}s"
    assert parse_duration(text) == hours * 3600 + minutes * 60 + seconds
    assert parse_duration(f"-{text}") == -parse_duration(text)
