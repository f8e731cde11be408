"""Parsing of control files."""

from __future__ import annotations

from sampan.kernel.cgroup.usage import (
    BlockIoEntry,
    Pressure,
    parse_blkio,
    parse_flat,
    parse_io_stat,
    parse_pressure,
)


def test_flat() -> None:
    assert parse_flat("cache 5\nrss 0\nodd\nname x\nlast 18446744073709551615") == {
        "cache": 5,
        "rss": 0,
        "last": 2**64 - 1,
    }


def test_io_stat() -> None:
    text = "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n253:1 cost.usage=1\n"
    read, write = (
        BlockIoEntry(major=8, minor=0, operation=name, value=value)
        for name, value in (("read", 1), ("write", 2))
    )
    io_bytes, io_operations = parse_io_stat(text)
    assert io_bytes == (read, write)
    assert [entry.value for entry in io_operations] == [3, 4]


def test_blkio() -> None:
    assert parse_blkio("254:0 Read 10\n254:0 Write 20\nTotal 30\n") == (
        BlockIoEntry(major=254, minor=0, operation="read", value=10),
        BlockIoEntry(major=254, minor=0, operation="write", value=20),
    )


def test_pressure() -> None:
    text = (
        "some avg10=1.50 avg60=0.00 avg300=0.25 total=77\n"
        "full avg10=0.00 avg60=0.00 avg300=0.00 total=0"
    )
    assert parse_pressure(text) == {
        "some": Pressure(avg10=1.5, avg60=0, avg300=0.25, total=77),
        "full": Pressure(avg10=0, avg60=0, avg300=0, total=0),
    }
