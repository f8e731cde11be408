"""Receiving a directory of the client's: fsutil's packets, only what changed since last time.

The client sends a STAT of everything it has, in order, each with the number it stands at, then an
empty one. We ask by number (REQ) for the files that are new or differ, get their DATA, an empty
one last, and say FIN. What a STAT says is kept beside the directory byte for byte; a file whose
STAT has the same bytes again has not changed and is not asked for.

Everything is written through descriptors of directories we made, never through a link, so what a
hostile client sends stays below its root.
"""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import shutil
import stat as modes
import struct
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from sampan.buildkit.protocol import wire_pb2 as wire
from sampan.buildkit.protocol.stat_pb2 import Stat
from sampan.errors import InvalidParameter, SampanError
from sampan.kernel.openat import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2

_BATCH = 1 << 20
_LENGTH = struct.Struct("<I")
_GO_DIRECTORY, _GO_LINK, _GO_DEVICE = 1 << 31, 1 << 27, 1 << 26
_GO_PIPE, _GO_SOCKET, _GO_SETUID, _GO_SETGID = 1 << 25, 1 << 24, 1 << 23, 1 << 22
_GO_CHARACTER, _GO_STICKY = 1 << 21, 1 << 20
_GO_TYPES = _GO_DIRECTORY | _GO_LINK | _GO_DEVICE | _GO_PIPE | _GO_SOCKET | _GO_CHARACTER
_MAX_ENTRIES = 5_000_000
_XATTRS = ("user.", "security.capability")


class PacketStream(Protocol):
    """The client's side of a transfer."""

    async def receive(self) -> bytes | None:
        """The next packet's bytes; None at the end."""
        ...

    async def send(self, packet: wire.Packet) -> None:
        """Send a packet."""
        ...

    async def end(self) -> None:
        """Nothing more is sent."""
        ...


class InThread(Protocol):
    """Runs blocking work in a worker thread."""

    async def __call__(self, function: Callable[..., object], *arguments: object) -> object: ...


@dataclass(slots=True)
class Received:
    """What a transfer came to: bytes of packets that came, entries there are, files sent anew."""

    bytes: int = 0
    entries: int = 0
    files: int = 0


def permissions(mode: int) -> int:
    """The permission bits of a Go file mode as chmod(2) takes them."""
    found = mode & 0o777
    for go, unix in (
        (_GO_SETUID, modes.S_ISUID),
        (_GO_SETGID, modes.S_ISGID),
        (_GO_STICKY, modes.S_ISVTX),
    ):
        if mode & go:
            found |= unix
    return found


def is_file(mode: int) -> bool:
    """Whether a Go file mode is a regular file's: one whose contents can be asked for."""
    return not mode & _GO_TYPES


@dataclass(slots=True)
class _Listing:
    """What the client has: its STATs as sent, by path, and the numbers of what must be fetched."""

    kept: Mapping[str, bytes]
    packets: dict[str, bytes] = field(default_factory=dict)
    directories: set[str] = field(default_factory=set)
    changed: dict[str, Stat] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)
    _previous: tuple[str, ...] = ()

    def add(self, packet: bytes, stat: Stat) -> None:
        """One STAT packet; raises :class:`InvalidParameter` for a path that is not one of ours."""
        path = stat.path
        parts = _parts(path)
        key = tuple(parts)
        if key <= self._previous:
            raise InvalidParameter(f"the client sent {path!r} out of order")
        self._previous = key
        parent = posixpath.dirname(path)
        if parent and parent not in self.directories:
            raise InvalidParameter(f"the client sent {path!r} before its directory")
        if stat.mode & _GO_DIRECTORY:
            self.directories.add(path)
        number = len(self.packets)
        self.packets[path] = packet
        if len(self.packets) > _MAX_ENTRIES:
            raise InvalidParameter(f"the client sent more than {_MAX_ENTRIES} files")
        if self.kept.get(path) != packet:
            self.changed[path] = copied = Stat()
            copied.CopyFrom(stat)
            self.numbers[path] = number

    @property
    def gone(self) -> list[str]:
        """Paths that are no more, deepest first."""
        return sorted(self.kept.keys() - self.packets.keys(), reverse=True)

    def touched(self) -> dict[str, Stat]:
        """Directories that did not change, but in which something will be made or removed."""
        found: dict[str, Stat] = {}
        for path in (*self.changed, *self.gone):
            parent = posixpath.dirname(path)
            if parent in self.packets and parent not in self.changed and parent not in found:
                found[parent] = wire.Packet.FromString(self.packets[parent]).stat
        return found


def _parts(path: str) -> list[str]:
    parts = path.split("/")
    if not path or any(part in ("", ".", "..") for part in parts) or "\0" in path:
        raise InvalidParameter(f"the client sent an invalid path: {path!r}")
    return parts


async def receive(
    stream: PacketStream,
    directory: Path,
    in_thread: InThread,
    progress: Callable[[int, bool], None],
) -> Received:
    """Make ``directory`` what the client sends; its parent also holds the list of what is there.

    ``progress`` is told the bytes received so far, and at last that it is all. Raises SampanError;
    the directory is then incomplete and its list gone, so that the next transfer starts anew.
    """
    index = Index(directory)
    kept = await in_thread(index.load)
    assert isinstance(kept, dict)
    received = Received()
    listing = await _list(stream, _Listing(kept), received, progress)
    received.entries = len(listing.packets)
    if listing.changed or listing.gone:
        await in_thread(index.remove)
        writer = Writer(directory)
        try:
            await in_thread(writer.prepare, listing.gone, listing.changed, listing.kept.keys())
            await _fetch(stream, listing, writer, in_thread, received, progress)
            await in_thread(writer.finish, {**listing.changed, **listing.touched()})
        except OSError as error:
            raise SampanError(f"cannot write what the client sent: {error}") from error
        finally:
            await in_thread(writer.close)
        await in_thread(index.store, listing.packets)
    await stream.send(wire.Packet(type=wire.Packet.PACKET_FIN))
    await stream.end()
    while await stream.receive() is not None:
        pass
    progress(received.bytes, True)
    return received


async def _receive(
    stream: PacketStream,
    packet: wire.Packet,
    received: Received,
    progress: Callable[[int, bool], None],
) -> bytes:
    """Fill ``packet`` with the client's next one, counted; returns it as it came."""
    data = await stream.receive()
    if data is None:
        raise SampanError("the client ended the transfer early")
    received.bytes += len(data)
    progress(received.bytes, False)
    packet.ParseFromString(data)
    if packet.type == wire.Packet.PACKET_ERR:
        raise SampanError(f"error from sender: {packet.data.decode(errors='replace')}")
    return data


async def _list(
    stream: PacketStream,
    listing: _Listing,
    received: Received,
    progress: Callable[[int, bool], None],
) -> _Listing:
    packet = wire.Packet()
    while True:
        data = await _receive(stream, packet, received, progress)
        if packet.type != wire.Packet.PACKET_STAT:
            raise InvalidParameter("the client sent contents before it was asked for them")
        if not packet.HasField("stat"):
            return listing
        listing.add(data, packet.stat)


async def _fetch(
    stream: PacketStream,
    listing: _Listing,
    writer: Writer,
    in_thread: InThread,
    received: Received,
    progress: Callable[[int, bool], None],
) -> None:
    """Ask for changed files, a bounded number at a time, and write what comes."""
    wanted: dict[int, str] = {}
    queue: Iterator[str] = iter(
        [path for path, stat in listing.changed.items() if is_file(stat.mode) and not stat.linkname]
    )

    async def ask() -> bool:
        path = next(queue, None)
        if path is None:
            return False
        number = listing.numbers[path]
        wanted[number] = path
        await stream.send(wire.Packet(type=wire.Packet.PACKET_REQ, ID=number))
        return True

    for _ in range(_ASKED_AHEAD):
        if not await ask():
            break
    batch: list[tuple[str, bytes]] = []
    size = 0
    packet = wire.Packet()
    while wanted:
        await _receive(stream, packet, received, progress)
        path = wanted.get(packet.ID)
        if packet.type != wire.Packet.PACKET_DATA or path is None:
            raise InvalidParameter(f"the client sent file {packet.ID}, which nobody asked for")
        batch.append((path, packet.data))
        size += len(packet.data) + 4096
        if not packet.data:
            del wanted[packet.ID]
            received.files += 1
            await ask()
        if size > _BATCH or not wanted:
            await in_thread(writer.write, batch)
            batch, size = [], 0


_ASKED_AHEAD = 128


class Index:
    """The list of what a kept directory holds: STAT packets, length first, one after another."""

    def __init__(self, directory: Path) -> None:
        self._path = directory.with_name(directory.name + ".index")

    def load(self) -> dict[str, bytes]:
        """The packets by path; nothing, and an empty directory, when there is no whole list."""
        directory = self._path.with_suffix("")
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir(mode=0o755, exist_ok=True)
            return {}
        found: dict[str, bytes] = {}
        offset = 0
        packet = wire.Packet()
        while offset < len(data):
            (length,) = _LENGTH.unpack_from(data, offset)
            raw = data[offset + 4 : offset + 4 + length]
            offset += 4 + length
            packet.ParseFromString(raw)
            found[packet.stat.path] = raw
        return found

    def remove(self) -> None:
        """The directory is about to change."""
        self._path.unlink(missing_ok=True)

    def store(self, packets: Mapping[str, bytes]) -> None:
        """The directory is whole again."""
        temporary = self._path.with_suffix(".new")
        temporary.write_bytes(
            b"".join(_LENGTH.pack(len(packet)) + packet for packet in packets.values())
        )
        temporary.replace(self._path)


class Writer:
    """Changes a kept directory; blocking. Paths are opened below its root, no link followed."""

    def __init__(self, directory: Path) -> None:
        self._root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._files: dict[str, int] = {}

    def close(self) -> None:
        """Close everything."""
        for fd in self._files.values():
            os.close(fd)
        self._files.clear()
        os.close(self._root)

    def prepare(
        self, gone: Sequence[str], changed: Mapping[str, Stat], before: Collection[str]
    ) -> None:
        """Remove what is gone or must be something else, make directories, links and pipes."""
        for path in gone:
            self._remove(path)
        for path, stat in changed.items():
            if path in before and not (stat.mode & _GO_DIRECTORY and self._is_directory(path)):
                self._remove(path)
        for path, stat in changed.items():
            self._make(path, stat)

    def _make(self, path: str, stat: Stat) -> None:
        if stat.mode & _GO_DIRECTORY:
            with self._parent(path) as (parent, name), contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o755, dir_fd=parent)
        elif stat.mode & _GO_LINK:
            with self._parent(path) as (parent, name):
                os.symlink(stat.linkname, name, dir_fd=parent)
        elif stat.mode & (_GO_PIPE | _GO_SOCKET):
            with self._parent(path) as (parent, name):
                os.mkfifo(name, 0o600, dir_fd=parent)
        elif not is_file(stat.mode):
            raise InvalidParameter(f"the build context holds a device: {path}")

    def write(self, batch: Sequence[tuple[str, bytes]]) -> None:
        """Append to files; an empty piece is a file's end."""
        for path, data in batch:
            fd = self._files.get(path)
            if fd is None:
                fd = self._files[path] = self._create(path)
            if data:
                _write_all(fd, data)
            else:
                os.close(self._files.pop(path))

    def finish(self, changed: Mapping[str, Stat]) -> None:
        """Hard links, then modes, times and attributes; directories last, deepest first."""
        for path, stat in changed.items():
            if is_file(stat.mode) and stat.linkname:
                self._link(path, stat.linkname)
        for path, stat in sorted(changed.items(), reverse=True):
            if not stat.mode & _GO_DIRECTORY:
                self._attributes(path, stat)
        for path, stat in sorted(changed.items(), reverse=True):
            if stat.mode & _GO_DIRECTORY:
                self._attributes(path, stat)

    def _attributes(self, path: str, stat: Stat) -> None:
        with self._parent(path) as (parent, name):
            if not stat.mode & _GO_LINK:
                fd = openat2(parent, name, os.O_PATH, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)
                try:
                    place = f"/proc/self/fd/{fd}"
                    os.chmod(place, permissions(stat.mode))
                    for key, value in stat.xattrs.items():
                        if key.startswith(_XATTRS):
                            _set_attribute(place, key, value)
                finally:
                    os.close(fd)
            times = (stat.modTime, stat.modTime)
            os.utime(name, ns=times, dir_fd=parent, follow_symlinks=False)

    def _link(self, path: str, target: str) -> None:
        _parts(target)
        with self._parent(target) as (old, name), self._parent(path) as (new, fresh):
            os.link(name, fresh, src_dir_fd=old, dst_dir_fd=new, follow_symlinks=False)

    def _create(self, path: str) -> int:
        with self._parent(path) as (parent, name):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            return os.open(name, flags, 0o600, dir_fd=parent)

    def _is_directory(self, path: str) -> bool:
        with self._parent(path) as (parent, name):
            try:
                return modes.S_ISDIR(os.lstat(name, dir_fd=parent).st_mode)
            except FileNotFoundError:
                return False

    def _remove(self, path: str) -> None:
        try:
            with self._parent(path) as (parent, name):
                if modes.S_ISDIR(os.lstat(name, dir_fd=parent).st_mode):
                    shutil.rmtree(name, dir_fd=parent)
                else:
                    os.unlink(name, dir_fd=parent)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                raise

    @contextlib.contextmanager
    def _parent(self, path: str) -> Iterator[tuple[int, str]]:
        """The directory of a path, opened without following a link, and its last part."""
        directory, _, name = path.rpartition("/")
        if not directory:
            yield self._root, name
            return
        flags = os.O_PATH | os.O_DIRECTORY
        fd = openat2(self._root, directory, flags, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)
        try:
            yield fd, name
        finally:
            os.close(fd)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _set_attribute(place: str, key: str, value: bytes) -> None:
    try:
        os.setxattr(place, key, value)
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
