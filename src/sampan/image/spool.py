"""An archive of images taken apart: its files spooled, hashed and, if they are layers, checked.

Small files stay in memory, the others go to ingests of the content store, uncommitted: nothing is
visible, and closing the spool leaves nothing, until the caller commits what it chose.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

from sampan.content import ContentStore, ContentWriter
from sampan.errors import ArchiveRefused, Corrupt, SampanError
from sampan.layer.check import check
from sampan.layer.compression import Compression, detect
from sampan.layer.entry import BLOCK, DIRECTORY, HARD_LINK, REGULAR_TYPES, SYMBOLIC_LINK, Entry
from sampan.layer.model import Limits, Readable
from sampan.layer.names import show, split
from sampan.layer.reader import TarReader
from sampan.layer.source import Incoming, Source, decompress
from sampan.model.digest import Digest

_IN_MEMORY = 4 << 20
_MEMORY_TOTAL = 64 << 20
_MAX_FILES = 20_000
_MAX_SPOOLED = 600
_MAX_HOPS = 16


@dataclass(slots=True, kw_only=True)
class File:
    """One regular file of the archive; ``data`` or ``writer`` has its bytes.

    ``diff_id`` is the digest of the tar inside if it is a layer, ``problem`` why it cannot be one.
    """

    size: int
    digest: Digest
    data: bytes | None = None
    writer: ContentWriter | None = None
    compression: Compression = Compression.NONE
    diff_id: Digest | None = None
    problem: SampanError | None = None


class Spool:
    """The files of one archive by normalised name. A context manager."""

    def __init__(self, content: ContentStore, limits: Limits) -> None:
        self._content = content
        self._limits = limits
        self._stack = ExitStack()
        self._held = 0
        self._spooled = 0
        self._links: dict[str, str] = {}
        self.files: dict[str, File] = {}

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def fill(self, stream: Readable) -> None:
        """Read a whole archive; raises ArchiveRefused, NoSpace."""
        incoming = Incoming(stream, hashed=False)
        source = Source(decompress(incoming), self._limits, incoming)
        reader = TarReader(source, self._limits)
        for entry in reader:
            name = _name(entry)
            if not name or entry.type == DIRECTORY:
                continue
            if len(self.files) + len(self._links) >= _MAX_FILES:
                raise ArchiveRefused(f"the archive has more than {_MAX_FILES} files")
            self.files.pop(name, None)
            self._links.pop(name, None)
            if entry.type in REGULAR_TYPES and entry.sparse is None:
                self.files[name] = self._file(name, entry, reader)
            elif entry.type == SYMBOLIC_LINK:
                target = posixpath.join(posixpath.dirname(name), _text(entry.link))
                self._links[name] = posixpath.normpath(target)
            elif entry.type == HARD_LINK:
                self._links[name] = posixpath.normpath(_text(entry.link))
            else:
                raise ArchiveRefused(f"an archive of images has no place for {show(entry.name)}")
        source.drain()
        if reader.entries == 0:
            raise ArchiveRefused("the archive is empty or no tar archive")

    def find(self, name: str) -> File:
        """The file called ``name``, links followed; raises ArchiveRefused when there is none."""
        path = posixpath.normpath(name)
        for _ in range(_MAX_HOPS):
            if path in self.files:
                return self.files[path]
            if path not in self._links:
                break
            path = self._links[path]
        raise ArchiveRefused(f"the archive has no file {name[:200]!r}")

    def has(self, name: str) -> bool:
        """Whether there is a regular file of exactly this name."""
        return name in self.files

    def document(self, name: str) -> bytes:
        """The bytes of a small file; raises ArchiveRefused when missing or too large."""
        return self.bytes_of(self.find(name))

    def bytes_of(self, file: File) -> bytes:
        """The bytes of a small file; raises ArchiveRefused when it is too large for a document."""
        if file.data is None:
            raise ArchiveRefused(f"a document of {file.size} bytes in the archive is too large")
        return file.data

    def layer(self, file: File) -> Digest:
        """The diff id of a file used as a layer; raises what is wrong with it."""
        if file.problem is not None:
            raise file.problem
        if file.diff_id is None:
            raise ArchiveRefused(f"{file.digest} in the archive is no layer")
        return file.diff_id

    def by_digest(self) -> dict[Digest, File]:
        """All files by what they contain."""
        return {file.digest: file for file in self.files.values()}

    def commit(self, file: File) -> None:
        """Make ``file`` a blob of the store; idempotent."""
        if file.data is not None:
            self._content.add(file.data, expected=file.digest)
        elif file.writer is not None and file.writer.commit() != file.digest:
            raise Corrupt(f"spooled content changed from {file.digest}")

    def _file(self, name: str, entry: Entry, reader: TarReader) -> File:
        algorithm = "sha512" if name.startswith("blobs/sha512/") else "sha256"
        if entry.stored <= _IN_MEMORY and self._held + entry.stored <= _MEMORY_TOTAL:
            self._held += entry.stored
            data = b"".join(reader.data())
            file = File(size=len(data), digest=Digest.of(data, algorithm), data=data)
            self._check(file, name, _Pieces(iter((memoryview(data),)), None))
            return file
        self._spooled += 1
        if self._spooled > _MAX_SPOOLED:
            raise ArchiveRefused(f"the archive has more than {_MAX_SPOOLED} large files")
        writer = self._stack.enter_context(
            self._content.writer(size=entry.stored, algorithm=algorithm)
        )
        file = File(size=entry.stored, digest=writer.digest, writer=writer)
        self._check(file, name, _Pieces(reader.data(), writer))
        if writer.offset != entry.stored:
            raise ArchiveRefused(f"truncated tar: it ends in the middle of {name[:200]!r}")
        return file

    def _check(self, file: File, name: str, stream: _Pieces) -> None:
        """Spool the file and find out whether it is a layer.

        Being none is no fault until it is used as one.
        """
        checked = None
        if name.endswith(".tar") or _looks_like_layer(stream.peek()):
            try:
                checked = check(stream, limits=self._limits)
            except ArchiveRefused as error:
                file.problem = error
        while stream.read(_IN_MEMORY):
            pass
        if file.writer is not None:
            file.digest = file.writer.digest
        if checked is not None:
            file.compression = checked.compression
            file.diff_id = checked.diff_id or file.digest


class _Pieces:
    """Data of a member as a stream; what is read is also spooled."""

    def __init__(self, pieces: Iterator[memoryview], writer: ContentWriter | None) -> None:
        self._pieces = pieces
        self._writer = writer
        self._first: memoryview | None = None

    def peek(self) -> bytes:
        """The first bytes, to tell what it is."""
        if self._first is None:
            self._first = next(self._pieces, None)
        return bytes(self._first[:BLOCK]) if self._first is not None else b""

    def read(self, size: int, /) -> bytes:
        """The next piece, whatever its size."""
        piece = self._first if self._first is not None else next(self._pieces, None)
        self._first = None
        if piece is None:
            return b""
        if self._writer is not None:
            self._writer.write(piece)
        return bytes(piece)


def _looks_like_layer(head: bytes) -> bool:
    known = detect(head) is not Compression.NONE or head[257:262] == b"ustar"
    return known or (len(head) == BLOCK and not any(head))


def _name(entry: Entry) -> str:
    directory, base = split(entry.name)
    return _text(directory + b"/" + base if directory else base)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
