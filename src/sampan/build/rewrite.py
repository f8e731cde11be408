"""Layers with bounded times: what SOURCE_DATE_EPOCH asks for (spec/dockerfile/build-repro.md)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from sampan.build.copying import Chunks
from sampan.layer import DEFAULT_LIMITS
from sampan.layer.entry import BLOCK, format_entry
from sampan.layer.reader import TarReader
from sampan.layer.source import Incoming, Source, decompress


def bound_times(chunks: Iterator[bytes], epoch: int) -> Iterator[bytes]:
    """The tar stream with every modification time later than ``epoch`` (seconds) set to it."""
    incoming = Incoming(Chunks(chunks), hashed=False)
    source = Source(decompress(incoming), DEFAULT_LIMITS, incoming)
    reader = TarReader(source, DEFAULT_LIMITS)
    latest = epoch * 1_000_000_000
    for entry in reader:
        yield format_entry(replace(entry, mtime=min(entry.mtime, latest)))
        if entry.stored:
            for piece in reader.data():
                yield bytes(piece)
            yield bytes(-entry.stored % BLOCK)
    yield bytes(2 * BLOCK)
