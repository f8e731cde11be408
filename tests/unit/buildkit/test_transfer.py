"""Receiving a directory: only changes travel, and nothing hostile leaves its root."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sampan.buildkit import transfer
from sampan.buildkit.directories import go_mode, stats
from sampan.buildkit.protocol.stat_pb2 import Stat
from sampan.buildkit.protocol.wire_pb2 import Packet
from sampan.errors import InvalidParameter, SampanError

DIRECTORY, LINK = 1 << 31 | 0o755, 1 << 27 | 0o777


class Client:
    """A client's side: sends a listing, then what it is asked for."""

    def __init__(self, listing: list[Stat], contents: dict[str, bytes]) -> None:
        self.listing = listing
        self.contents = contents
        self.asked: list[str] = []
        self.finished = False
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        for one in listing:
            self.put(Packet(type=Packet.PACKET_STAT, stat=one))
        self.put(Packet(type=Packet.PACKET_STAT))

    def put(self, packet: Packet) -> None:
        self._queue.put_nowait(packet.SerializeToString())

    async def receive(self) -> bytes | None:
        return await asyncio.wait_for(self._queue.get(), 5)

    async def send(self, packet: Packet) -> None:
        if packet.type == Packet.PACKET_FIN:
            self.finished = True
            self.put(Packet(type=Packet.PACKET_FIN))
            self._queue.put_nowait(None)
            return
        assert packet.type == Packet.PACKET_REQ
        path = self.listing[packet.ID].path
        self.asked.append(path)
        for start in range(0, len(self.contents[path]), 1000):
            piece = self.contents[path][start : start + 1000]
            self.put(Packet(type=Packet.PACKET_DATA, ID=packet.ID, data=piece))
        self.put(Packet(type=Packet.PACKET_DATA, ID=packet.ID))

    async def end(self) -> None:
        assert self.finished


async def in_thread(function: Callable[..., object], *arguments: object) -> object:
    return function(*arguments)


def listed(root: Path) -> Client:
    """A client that has the directory ``root``."""
    listing = list(stats(root))
    contents = {
        one.path: (root / one.path).read_bytes()
        for one in listing
        if transfer.is_file(one.mode) and not one.linkname
    }
    return Client(listing, contents)


async def receive(client: Client, place: Path) -> transfer.Received:
    return await transfer.receive(client, place / "content", in_thread, lambda size, done: None)


def tree(root: Path) -> dict[str, Any]:
    """What a directory holds: kind, permissions, time and contents of everything."""
    found: dict[str, Any] = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        content: object = None
        if path.is_symlink():
            content = os.readlink(path)
        elif path.is_file():
            content = path.read_bytes()
        mode = oct(status.st_mode)
        found[str(path.relative_to(root))] = (mode, status.st_mtime_ns, content)
    return found


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    (root / "sub" / "deep").mkdir(parents=True)
    (root / "sub" / "a").write_bytes(b"a" * 5000)
    (root / "sub" / "deep" / "b").write_text("b")
    (root / "sub-x").write_text("sorts between sub and what is in it")
    (root / "empty").write_text("")
    (root / "link").symlink_to("sub/a")
    os.link(root / "sub" / "a", root / "sub" / "hard")
    (root / "tool").write_text("#!")
    (root / "tool").chmod(0o4755)
    return root


async def test_a_directory_comes_whole_and_only_changes_come_again(
    source: Path, tmp_path: Path
) -> None:
    place = tmp_path / "kept"
    place.mkdir()
    first = listed(source)
    received = await receive(first, place)
    assert received.files == len(first.asked) == 5
    assert tree(place / "content") == tree(source)
    hard = place / "content" / "sub" / "hard"
    assert hard.stat().st_ino == (place / "content" / "sub" / "a").stat().st_ino

    again = listed(source)
    assert (await receive(again, place)).files == 0
    assert again.asked == []

    (source / "sub" / "deep" / "b").write_text("changed")
    (source / "empty").unlink()
    (source / "link").unlink()
    (source / "link").mkdir()
    (source / "link" / "new").write_text("new")
    (source / "tool").chmod(0o600)
    third = listed(source)
    await receive(third, place)
    assert sorted(third.asked) == ["link/new", "sub/deep/b", "tool"]
    assert tree(place / "content") == tree(source)


async def test_a_directory_becomes_a_file_and_a_link(source: Path, tmp_path: Path) -> None:
    place = tmp_path / "kept"
    place.mkdir()
    await receive(listed(source), place)
    for path in sorted((source / "sub").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (source / "sub").rmdir()
    (source / "sub").symlink_to("/etc")
    await receive(listed(source), place)
    assert tree(place / "content") == tree(source)
    assert os.readlink(place / "content" / "sub") == "/etc"


@pytest.mark.parametrize(
    "listing",
    [
        [Stat(path="../out", mode=0o644)],
        [Stat(path="/out", mode=0o644)],
        [Stat(path="a//b", mode=0o644)],
        [Stat(path="", mode=0o644)],
        [Stat(path="a\0b", mode=0o644)],
        [Stat(path="missing/out", mode=0o644)],
        [Stat(path="link", mode=LINK, linkname=".."), Stat(path="link/out", mode=0o644)],
        [Stat(path="file", mode=0o644), Stat(path="file/out", mode=0o644)],
        [Stat(path="a", mode=0o644), Stat(path="a", mode=LINK, linkname="/etc/passwd")],
        [Stat(path="hard", mode=0o644, linkname="../../secret")],
        [Stat(path="device", mode=1 << 26 | 0o600)],
    ],
    ids=lambda listing: listing[-1].path or "empty",
)
async def test_a_hostile_listing_is_refused(listing: list[Stat], tmp_path: Path) -> None:
    place = tmp_path / "kept"
    place.mkdir()
    (tmp_path / "secret").write_text("secret")
    before = os.listdir(tmp_path)
    client = Client(listing, {one.path: b"x" for one in listing})
    with pytest.raises(InvalidParameter):
        await receive(client, place)
    assert os.listdir(tmp_path) == before
    assert not list(place.rglob("out"))
    assert (await receive(Client([], {}), place)).entries == 0, "the next one starts anew"


async def test_what_breaks_off_is_fetched_again(source: Path, tmp_path: Path) -> None:
    place = tmp_path / "kept"
    place.mkdir()
    await receive(listed(source), place)
    (source / "sub" / "a").write_bytes(b"z" * 9000)
    broken = listed(source)
    broken.contents["sub/a"] = b""

    async def refuse(packet: Packet) -> None:
        broken.put(Packet(type=Packet.PACKET_ERR, data=b"disk on fire"))

    broken.send = refuse  # type: ignore[method-assign]
    with pytest.raises(SampanError, match="disk on fire"):
        await receive(broken, place)
    whole = listed(source)
    await receive(whole, place)
    assert tree(place / "content") == tree(source)


async def test_contents_nobody_asked_for_are_refused(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    client = Client([Stat(path="d", mode=DIRECTORY), Stat(path="f", mode=0o644)], {"f": b""})

    async def other(packet: Packet) -> None:
        client.put(Packet(type=Packet.PACKET_DATA, ID=0, data=b"x"))

    client.send = other  # type: ignore[method-assign]
    with pytest.raises(InvalidParameter, match="nobody asked"):
        await receive(client, tmp_path / "kept")


@pytest.mark.parametrize(
    ("unix", "go"),
    [
        (stat.S_IFREG | 0o644, 0o644),
        (stat.S_IFDIR | stat.S_ISVTX | 0o777, 1 << 31 | 1 << 20 | 0o777),
        (stat.S_IFREG | stat.S_ISUID | stat.S_ISGID | 0o755, 1 << 23 | 1 << 22 | 0o755),
        (stat.S_IFCHR | 0o600, 1 << 26 | 1 << 21 | 0o600),
    ],
)
def test_modes_are_go_s(unix: int, go: int) -> None:
    assert go_mode(unix) == go
    assert transfer.permissions(go) == stat.S_IMODE(unix)
