"""Sending a directory to the client: fsutil's packets the other way round (``type=local``).

We list everything in order, the client asks for the files it has not, and says when it is done.
"""

from __future__ import annotations

import os
import stat as modes
from collections.abc import Callable, Iterator
from pathlib import Path

from sampan.buildkit.caller import SEND, told
from sampan.buildkit.protocol import wire_pb2 as wire
from sampan.buildkit.protocol.stat_pb2 import Stat
from sampan.buildkit.rpc import ClientStream
from sampan.buildkit.sessions import Session
from sampan.engine.threads import Threads
from sampan.errors import InvalidParameter, SampanError
from sampan.layer.tree import walk

_CHUNK = 32 << 10
_GO_TYPES = {
    modes.S_IFREG: 0,
    modes.S_IFDIR: 1 << 31,
    modes.S_IFLNK: 1 << 27,
    modes.S_IFBLK: 1 << 26,
    modes.S_IFCHR: 1 << 26 | 1 << 21,
    modes.S_IFIFO: 1 << 25,
    modes.S_IFSOCK: 1 << 24,
}
_GO_BITS = ((modes.S_ISUID, 1 << 23), (modes.S_ISGID, 1 << 22), (modes.S_ISVTX, 1 << 20))


def go_mode(mode: int) -> int:
    """A file's ``st_mode`` as Go writes it."""
    found = _GO_TYPES[modes.S_IFMT(mode)] | mode & 0o777
    for unix, go in _GO_BITS:
        if mode & unix:
            found |= go
    return found


def stats(directory: Path) -> Iterator[Stat]:
    """Everything below a directory in the order the protocol wants. Blocking."""
    root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    first: dict[tuple[int, int], str] = {}
    try:
        for node in walk(root):
            status = node.status
            path = os.fsdecode(node.path)
            stat = Stat(
                path=path,
                mode=go_mode(status.st_mode),
                uid=status.st_uid,
                gid=status.st_gid,
                modTime=status.st_mtime_ns,
            )
            if modes.S_ISLNK(status.st_mode):
                stat.linkname = os.fsdecode(os.readlink(node.name, dir_fd=node.parent))
            elif modes.S_ISREG(status.st_mode):
                stat.size = status.st_size
                before = first.setdefault((status.st_dev, status.st_ino), path)
                if before != path:
                    stat.linkname, stat.size = before, 0
            elif modes.S_ISCHR(status.st_mode) or modes.S_ISBLK(status.st_mode):
                stat.devmajor, stat.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
            yield stat
    finally:
        os.close(root)


async def send_directory(
    session: Session,
    directory: Path,
    threads: Threads,
    *,
    exporter: int,
    progress: Callable[[int, bool], None],
) -> None:
    """Give the client a directory for its exporter number ``exporter`` (0 the first)."""
    session.require(SEND, "place for files")
    metadata = [
        ("buildkit-attachable-exporter-id", str(exporter)),
        ("buildkit-exporter-multi-platform", "1"),
    ]
    with told("the client's output directory"):
        async with session.channel.open(SEND, metadata, raw=True) as stream:
            await stream.send_request()
            names: list[str] = []
            sent = 0
            async for stat in threads.iterate(stats(directory), ahead=256):
                names.append(stat.path)
                packet = wire.Packet(type=wire.Packet.PACKET_STAT, stat=stat)
                await stream.send_message(packet)
            await stream.send_message(wire.Packet(type=wire.Packet.PACKET_STAT))
            while (data := await stream.recv_message()) is not None:
                packet = wire.Packet.FromString(data)
                match packet.type:
                    case wire.Packet.PACKET_REQ:
                        if len(names) <= packet.ID:
                            raise InvalidParameter(f"the client asked for file {packet.ID}")
                        path = directory / names[packet.ID]
                        sent += await _file(stream, threads, path, packet.ID)
                        progress(sent, False)
                    case wire.Packet.PACKET_ERR:
                        text = packet.data.decode(errors="replace")
                        raise SampanError(f"error from receiver: {text}")
                    case wire.Packet.PACKET_FIN:
                        await stream.send_message(wire.Packet(type=wire.Packet.PACKET_FIN))
                        await stream.end()
            progress(sent, True)


async def _file(stream: ClientStream, threads: Threads, path: Path, number: int) -> int:
    """A file's contents and the empty packet that ends them; how many bytes."""
    size = 0

    def chunks() -> Iterator[bytes]:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(fd, "rb", buffering=0) as file:
            while data := file.read(_CHUNK):
                yield data

    async for data in threads.iterate(chunks()):
        size += len(data)
        await stream.send_message(wire.Packet(type=wire.Packet.PACKET_DATA, ID=number, data=data))
    await stream.send_message(wire.Packet(type=wire.Packet.PACKET_DATA, ID=number))
    return size
