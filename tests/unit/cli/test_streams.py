"""Frames, detach keys, progress, tables, units, clocks: what is shown and how."""

from __future__ import annotations

import os
import time

import pytest

from sampan.cli import clock
from sampan.cli.detach_keys import KeyFilter, parse_keys
from sampan.cli.frames import Demultiplexer, FrameError
from sampan.cli.help import wrap
from sampan.cli.progress import Progress
from sampan.cli.show import ellipsis, ports_text, short_id
from sampan.cli.signals import SignalPipe, api_name
from sampan.cli.table import align
from sampan.cli.units import binary_size, human_duration, human_size
from sampan.client.failure import StreamFailed


def frame(stream: int, payload: bytes) -> bytes:
    return bytes((stream, 0, 0, 0)) + len(payload).to_bytes(4, "big") + payload


@pytest.mark.parametrize("step", [1, 2, 7, 8, 9, 1000])
def test_frames_however_they_arrive(step: int) -> None:
    data = frame(1, b"out") + frame(2, b"") + frame(2, b"error") + frame(1, b"x" * 300)
    splitter = Demultiplexer()
    outputs = {1: b"", 2: b""}
    for at in range(0, len(data), step):
        for stream, piece in splitter.feed(data[at : at + step]):
            outputs[stream] += piece
    assert outputs == {1: b"out" + b"x" * 300, 2: b"error"}
    with pytest.raises(FrameError):
        list(splitter.feed(b"plain text"))


@pytest.mark.parametrize(
    ("keys", "typed", "passed", "detached"),
    [
        ("ctrl-p,ctrl-q", [b"ab\x10\x11"], b"ab", True),
        ("ctrl-p,ctrl-q", [b"\x10", b"\x11"], b"", True),
        ("ctrl-p,ctrl-q", [b"\x10", b"x"], b"\x10x", False),
        ("ctrl-p,ctrl-q", [b"\x10\x10\x11"], b"\x10", True),
        ("a,b", [b"xaab"], b"xa", True),
        ("ctrl-@", [b"x\0y"], b"x", True),
        ("ctrl-[,ctrl-_", [b"\x1b", b"\x1f"], b"", True),
    ],
)
def test_detach_keys(keys: str, typed: list[bytes], passed: bytes, detached: bool) -> None:
    watcher = KeyFilter(parse_keys(keys))
    seen = b""
    done = False
    for data in typed:
        piece, done = watcher.feed(data)
        seen += piece
    assert (seen, done) == (passed, detached)


@pytest.mark.parametrize("keys", ["ctrl-", "ctrl-1", "abc", "", "a,,b"])
def test_bad_detach_keys(keys: str) -> None:
    with pytest.raises(ValueError):
        parse_keys(keys)


def test_signals_wait_in_the_pipe() -> None:
    import signal

    with SignalPipe(proxied=True) as signals:
        assert signals.take() == []
        os.kill(os.getpid(), signal.SIGUSR1)
        assert signals.take() == [signal.SIGUSR1]
    assert (api_name(signal.SIGINT), api_name(signal.SIGRTMIN + 3)) == ("INT", "RTMIN+3")


RECORDS = [
    {"status": "Pulling from x", "id": "latest"},
    {"status": "Downloading", "id": "aa", "progressDetail": {"current": 500, "total": 1000}},
    {"status": "Pull complete", "id": "aa", "progressDetail": {}},
    {"stream": "Step 1\n"},
    {"aux": {"ID": "sha256:1"}},
    {"status": "Digest: sha256:2"},
]


def test_progress_off_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[object] = []
    Progress(1, terminal=False, on_aux=seen.append).show([dict(r) for r in RECORDS])  # type: ignore[arg-type]
    assert capsys.readouterr().out == (
        "latest: Pulling from x\naa: Pull complete\nStep 1\nDigest: sha256:2\n"
    )
    assert seen == [{"ID": "sha256:1"}]


def test_progress_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    Progress(2, terminal=True).show([dict(r) for r in RECORDS[:3]])  # type: ignore[arg-type]
    shown = capsys.readouterr().err
    assert "aa: Downloading [=========================>" in shown
    assert shown.endswith("\x1b[1A\x1b[2K\raa: Pull complete\x1b[1B\r")


def test_progress_ends_with_the_error() -> None:
    with pytest.raises(StreamFailed) as caught:
        Progress(1, terminal=False).swallow([{"errorDetail": {"code": 7, "message": "no"}}])
    assert (caught.value.message, caught.value.code) == ("no", 7)


@pytest.mark.parametrize(
    ("text", "aligned"),
    [
        ("A\tB\nlonger text\tx", "A             B\nlonger text   x"),
        ("A\tB\tC\n1\t2\t3", "A         B         C\n1         2         3"),
        ("one\nA\tB\n", "one\nA         B\n"),
        ("a\tb\nno tab\nlong long long\tc", "a         b\nno tab\nlong long long   c"),
        ("", ""),
    ],
)
def test_tables(text: str, aligned: str) -> None:
    assert align(text) == aligned


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.5, "Less than a second"), (1, "1 second"), (59, "59 seconds"), (60, "About a minute"),
        (119, "About a minute"), (120, "2 minutes"), (3599, "59 minutes"), (3600, "About an hour"),
        (5400, "2 hours"), (47 * 3600, "47 hours"), (48 * 3600, "2 days"), (14 * 86400, "2 weeks"),
        (60 * 86400, "2 months"), (800 * 86400, "2 years"),
    ],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert human_duration(seconds) == text


def test_sizes() -> None:
    assert [human_size(n, 3) for n in (0, 999, 1000, 1982000)] == ["0B", "999B", "1kB", "1.98MB"]
    assert [human_size(n) for n in (1982000, 12345678901)] == ["1.982MB", "12.35GB"]
    assert [binary_size(n) for n in (0, 1023, 64 << 20, 25276063744)] == [
        "0B", "1023B", "64MiB", "23.54GiB",
    ]  # fmt: skip


def test_identities_and_ports() -> None:
    assert short_id("sha256:" + "a" * 64) == "a" * 12 == short_id("a" * 64)
    assert (ellipsis("abcdef", 4), ellipsis("abc", 4)) == ("abc…", "abc")
    ports = [
        {"PrivatePort": port, "PublicPort": port, "Type": "tcp", "IP": ip}
        for port in (80, 81, 83)
        for ip in ("0.0.0.0", "::")
    ]
    ports += [{"PrivatePort": 90, "Type": "udp"}, {"PrivatePort": 443, "PublicPort": 8443,
                                                   "Type": "tcp", "IP": "127.0.0.1"}]  # fmt: skip
    assert ports_text([dict(p) for p in ports]) == (  # type: ignore[arg-type]
        "0.0.0.0:80-81->80-81/tcp, [::]:80-81->80-81/tcp, 90/udp, 0.0.0.0:83->83/tcp, "
        "[::]:83->83/tcp, 127.0.0.1:8443->443/tcp"
    )


def test_instants(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        instant = clock.parse_rfc3339("2026-07-01T12:00:00.000000001Z")
        assert instant == 1782907200 * 10**9 + 1
        assert clock.parse_rfc3339("2026-07-01T14:00:00.000000001+02:00") == instant
        assert clock.parse_rfc3339("yesterday") is None
        assert clock.go_string(instant) == "2026-07-01 14:00:00.000000001 +0200 CEST"
        assert clock.rfc3339(instant, digits=9) == "2026-07-01T14:00:00.000000001+02:00"
        assert clock.rfc3339(instant, local=False) == "2026-07-01T12:00:00Z"
        assert clock.ansi_c(instant) == "Wed Jul  1 14:00:00 2026"
        queries = {
            "10m": "1782906600.000000001",
            "2026-07-01": "1782856800.000000000",
            "2026-07-01T14:00": "1782907200.000000000",
            "2026-07-01T12:00:00Z": "1782907200.000000000",
            "1234.5": "1234.5",
            "0": "0",
        }
        for text, query in queries.items():
            assert clock.to_query(text, instant) == query
        with pytest.raises(ValueError):
            clock.to_query("soon", instant)
    finally:
        monkeypatch.undo()
        time.tzset()


def test_help_texts_are_wrapped() -> None:
    assert wrap("one two", 10, 79) == "one two"
    words = " ".join(["word"] * 20)
    lines = wrap(words, 30, 79).split("\n")
    assert len(lines) > 1
    assert all(len(line) <= 79 for line in lines)
    assert wrap("a\nb " + words, 30, 79).startswith("a\n" + " " * 30 + "b word")
