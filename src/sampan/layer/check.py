"""Check a layer without extracting it: is it a tar, within limits, with names that stay inside?"""

from __future__ import annotations

from dataclasses import dataclass

from sampan.layer.compression import Compression, detect
from sampan.layer.entry import HARD_LINK
from sampan.layer.model import DEFAULT_LIMITS, Limits, Readable
from sampan.layer.names import link_target, split
from sampan.layer.reader import TarReader
from sampan.layer.source import Hashed, Incoming, Source, decompress
from sampan.model.digest import Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What a layer turned out to be.

    ``diff_id`` and ``size`` (bytes) are of the tar inside; ``diff_id`` is None for an uncompressed
    layer, whose digest the caller computes anyway.
    """

    compression: Compression
    diff_id: Digest | None
    size: int
    entries: int


class _Head:
    """A stream whose first bytes are looked at before they are read."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self.head = b""
        while len(self.head) < 6 and (more := stream.read(1 << 16)):
            self.head += more

    def read(self, size: int, /) -> bytes:
        if self.head:
            head, self.head = self.head, b""
            return head
        return self._stream.read(size)


def check(stream: Readable, *, limits: Limits = DEFAULT_LIMITS) -> Checked:
    """Read a layer to its end; raises ArchiveRefused as :func:`sampan.layer.apply.apply` would.

    What only extracting can show (links that lead out, rights) is not seen here.
    """
    peeked = _Head(stream)
    compression = detect(peeked.head)
    plain = compression is Compression.NONE
    incoming = Incoming(peeked, hashed=False)
    chunks = decompress(incoming)
    hashed = None if plain else Hashed(chunks)
    source = Source(chunks if hashed is None else hashed, limits, incoming)
    reader = TarReader(source, limits)
    for entry in reader:
        split(entry.name)
        if entry.type == HARD_LINK:
            link_target(entry.name, entry.link)
    source.drain()
    return Checked(
        compression=compression,
        diff_id=None if hashed is None else hashed.digest,
        size=source.count,
        entries=reader.entries,
    )
