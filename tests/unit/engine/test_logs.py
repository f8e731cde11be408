"""Reading logs back: tails over rotated files, damaged lines, framing, both formats."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.engine import localfile, logfile
from sampan.engine.logfile import Position, Renderer
from sampan.engine.options import LogsOptions
from sampan.runtime.log_format import Lines, LocalFormat


def line(text: str, stream: str = "stdout", second: int = 0) -> bytes:
    stamp = f"2024-01-02T03:04:{second:02d}.5Z"
    return json.dumps({"log": f"{text}\n", "stream": stream, "time": stamp}).encode() + b"\n"


def read(path: Path, tail: int | None) -> list[str]:
    texts: list[str] = []
    for block in logfile.blocks(path, tail):
        if isinstance(block, Position):
            block.close()
        else:
            texts += [entry.log.rstrip("\n") for entry in logfile.decode(block)]
    return texts


@pytest.mark.parametrize("tail", [None, 0, 1, 3, 4, 7, 9, 10, 99])
def test_tail_over_rotated_files(tmp_path: Path, tail: int | None) -> None:
    numbers = [str(n) for n in range(10)]
    log = tmp_path / "x.log"
    Path(f"{log}.2.gz").write_bytes(gzip.compress(b"".join(line(n) for n in numbers[:3])))
    Path(f"{log}.1").write_bytes(b"".join(line(n) for n in numbers[3:7]))
    log.write_bytes(b"".join(line(n) for n in numbers[7:]))
    expected = numbers if tail is None else numbers[len(numbers) - min(tail, 10) :]
    assert read(log, tail) == expected


@given(
    sizes=st.lists(st.integers(0, 2000), max_size=60),
    tail=st.integers(0, 70),
    block=st.integers(40, 4000),
)
def test_tail_of_any_lines(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], tail: int, block: int
) -> None:
    texts = [f"{number}{'x' * size}" for number, size in enumerate(sizes)]
    log = tmp_path_factory.mktemp("log") / "x.log"
    log.write_bytes(b"".join(line(text) for text in texts))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logfile, "_BLOCK", block)
        assert read(log, tail) == (texts[-tail:] if tail else [])
        assert read(log, None) == texts


def test_an_unfinished_line_waits(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_bytes(line("one") + line("two")[:20])
    found = list(logfile.blocks(log, None))
    position = found[-1]
    assert isinstance(position, Position)
    assert [e.log for e in logfile.decode(found[0])] == ["one\n"]  # type: ignore[arg-type]
    with log.open("ab") as file:
        file.write(line("two")[20:])
    [block] = logfile.read_on(position)
    assert [e.log for e in logfile.decode(block)] == ["two\n"]
    assert logfile.successor(log, position) is None
    log.rename(f"{log}.1")
    log.write_bytes(line("three"))
    following = logfile.successor(log, position)
    assert following is not None
    [block] = logfile.read_on(following)
    assert [e.log for e in logfile.decode(block)] == ["three\n"]
    position.close()
    following.close()


def test_two_rotations_between_readings(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_bytes(line("one"))
    *_, position = logfile.blocks(log, None)
    assert isinstance(position, Position)
    log.rename(f"{log}.2")
    Path(f"{log}.1").write_bytes(line("two"))
    log.write_bytes(line("three"))
    texts = []
    while (following := logfile.successor(log, position)) is not None:
        position.close()
        position = following
        texts += [e.log for block in logfile.read_on(position) for e in logfile.decode(block)]
    position.close()
    assert texts == ["two\n", "three\n"]


def test_a_damaged_line_costs_only_itself() -> None:
    block = line("one") + b'{"log": "tor\n' + line("two")
    assert [entry.log for entry in logfile.decode(block)] == ["one\n", "two\n"]


def test_rendering() -> None:
    lines = logfile.decode(line("a", second=1) + line("b", "stderr", 2) + line("c", second=3))
    plain = Renderer(options=LogsOptions(), tty=False)
    assert plain.render(lines)[0] == (
        b"\x01\0\0\0\0\0\0\x02a\n\x02\0\0\0\0\0\0\x02b\n\x01\0\0\0\0\0\0\x02c\n"
    )
    since = logfile.nanoseconds("2024-01-02T03:04:02.5Z") / 1e9
    chosen = Renderer(options=LogsOptions(stderr=False, timestamps=True, since=since), tty=True)
    assert chosen.render(lines) == (b"2024-01-02T03:04:03.500000000Z c\n", False)
    until = Renderer(options=LogsOptions(until=since), tty=True)
    assert until.render(lines) == (b"a\nb\n", True)


def entry(text: bytes, stamp: int, *, partial: bool = False) -> bytes:
    def varint(value: int) -> bytes:
        out = bytearray()
        while value > 0x7F:
            out.append(value & 0x7F | 0x80)
            value >>= 7
        out.append(value)
        return bytes(out)

    message = b"\x0a\x06stderr\x10" + varint(stamp) + b"\x1a" + varint(len(text)) + text
    message += b"\x20\x01" if partial else b""
    size = len(message).to_bytes(4, "big")
    return size + message + size


def test_local_format(tmp_path: Path) -> None:
    data = entry(b"one", 1_500_000_000) + entry(b"tw", 2, partial=True) + entry(b"o", 3)
    lines, used = localfile.decode(data + data[:7])
    assert used == len(data)
    assert [(e.log, e.stream) for e in lines] == [
        ("one\n", "stderr"),
        ("tw", "stderr"),
        ("o\n", "stderr"),
    ]
    assert lines[0].time == "1970-01-01T00:00:01.5Z"
    log = tmp_path / "container.log"
    log.write_bytes(data)
    *batches, position = localfile.blocks(log, 1)
    assert isinstance(position, Position)
    position.close()
    assert [e.log for batch in batches for e in batch] == ["o\n"]  # type: ignore[union-attr]


def test_a_local_line_in_pieces_keeps_its_end() -> None:
    lines, form = Lines(), LocalFormat()
    batches = lines.feed(b"x" * 20_000 + b"\nnext\nend") + lines.finish()
    data = b"".join(form.records("stdout", part, whole, 5) for part, whole in batches)
    entries, used = localfile.decode(data)
    assert used == len(data)
    shown = [(len(entry.log), entry.log[-1], entry.ordinal) for entry in entries]
    assert shown == [(16384, "x", 1), (3617, "\n", 2), (5, "\n", 0), (3, "d", 1)]
    assert entries[0].piece_of == entries[1].piece_of != entries[3].piece_of
