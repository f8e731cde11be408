"""Tar streams with other times and names: what SOURCE_DATE_EPOCH and outputs of files ask for
(spec/dockerfile/build-repro.md)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from sampan.build.copying import Chunks
from sampan.layer import DEFAULT_LIMITS
from sampan.layer.entry import BLOCK, HARD_LINK, format_entry
from sampan.layer.reader import TarReader
from sampan.layer.source import Incoming, Source, decompress


def bound_times(chunks: Iterator[bytes], epoch: int) -> Iterator[bytes]:
    """The tar stream with every modification time later than ``epoch`` (seconds) set to it."""
    yield from members(chunks, epoch=epoch)
    yield bytes(2 * BLOCK)


def members(
    chunks: Iterator[bytes], *, epoch: int | None = None, prefix: bytes = b""
) -> Iterator[bytes]:
    """The tar stream without its end: times bound by ``epoch``, names put below ``prefix``."""
    incoming = Incoming(Chunks(chunks), hashed=False)
    source = Source(decompress(incoming), DEFAULT_LIMITS, incoming)
    reader = TarReader(source, DEFAULT_LIMITS)
    for entry in reader:
        if epoch is not None:
            entry = replace(entry, mtime=min(entry.mtime, epoch * 1_000_000_000))
        if prefix:
            link = prefix + entry.link if entry.type == HARD_LINK else entry.link
            entry = replace(entry, name=prefix + entry.name, link=link)
        yield format_entry(entry)
        if entry.stored:
            for piece in reader.data():
                yield bytes(piece)
            yield bytes(-entry.stored % BLOCK)
