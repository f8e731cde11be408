"""Make layers: file system changes as a deterministic tar stream, in chunks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from sampan.layer.model import Change


def diff_overlay(upper: Path, lowers: Sequence[Path] = ()) -> Iterator[bytes]:
    """The changes in an overlay's upper directory, as an uncompressed layer.

    Lower directories are never walked; ``lowers`` (topmost first) only serve to leave out
    whiteouts of names that no lower layer has.
    """
    raise NotImplementedError


def diff_trees(lower: int | None, upper: int) -> Iterator[bytes]:
    """The changes between two whole trees (directory descriptors), as an uncompressed layer.

    With ``lower`` None the whole of ``upper``, whiteout names included literally: what
    ``docker export`` writes.
    """
    raise NotImplementedError


def changes_overlay(upper: Path, lowers: Sequence[Path]) -> list[Change]:
    """What ``docker diff`` lists for an overlay, sorted by path."""
    raise NotImplementedError


def changes_trees(lower: int, upper: int) -> list[Change]:
    """What ``docker diff`` lists for two whole trees, sorted by path."""
    raise NotImplementedError
