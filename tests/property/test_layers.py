"""apply(diff(a, b)) == b, in every way a layer is made and applied."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sampan.kernel import mount
from sampan.layer import (
    Compression,
    Destination,
    Whiteouts,
    apply,
    compress,
    diff_overlay,
    diff_trees,
)
from tests.property.trees import Tree, build, describe, edits, trees

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="owners and device nodes need root")
SETTINGS = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@contextmanager
def scratch(*names: str) -> Iterator[list[Path]]:
    with tempfile.TemporaryDirectory(prefix="sampan-layers-") as root:
        paths = [Path(root, name) for name in names]
        for path in paths:
            path.mkdir()
            path.chmod(0o755)
        yield paths


def whole(lower: Path | None, upper: Path) -> bytes:
    below = None if lower is None else os.open(lower, os.O_RDONLY)
    above = os.open(upper, os.O_RDONLY)
    try:
        return b"".join(diff_trees(below, above))
    finally:
        os.close(above)
        if below is not None:
            os.close(below)


def put(
    layer: bytes | Iterable[bytes], root: Path, whiteouts: Whiteouts, lowers: tuple[Path, ...] = ()
) -> None:
    data = layer if isinstance(layer, bytes) else b"".join(layer)
    apply(io.BytesIO(data), Destination(root=root, whiteouts=whiteouts, lowers=lowers))


@contextmanager
def overlay(upper: Path, lower: Path) -> Iterator[int]:
    """The merged tree, read-only, as a descriptor."""
    fd = mount.new_filesystem("overlay", "", [("lowerdir", f"{upper}:{lower}")])
    try:
        yield fd
    finally:
        os.close(fd)


@given(trees())
@SETTINGS
def test_whole_tree_survives(tree: Tree) -> None:
    with scratch("a", "out", "again") as (a, out, again):
        build(tree, a)
        layer = whole(None, a)
        put(layer, out, Whiteouts.LITERAL)
        assert describe(out) == describe(a)
        put(compress([layer], Compression.ZSTD), again, Whiteouts.OVERLAY)
        assert describe(again) == describe(a)
        assert whole(None, again) == layer  # deterministic


@given(trees().flatmap(lambda tree: st.tuples(st.just(tree), edits(tree))))
@SETTINGS
def test_difference_applies_in_place(pair: tuple[Tree, Tree]) -> None:
    with scratch("a", "b", "out") as (a, b, out):
        build(pair[0], a)
        build(pair[1], b)
        put(whole(None, a), out, Whiteouts.LITERAL)
        put(whole(a, b), out, Whiteouts.REMOVE)
        assert describe(out) == describe(b)


@given(trees().flatmap(lambda tree: st.tuples(st.just(tree), edits(tree))))
@SETTINGS
def test_difference_applies_as_overlay(pair: tuple[Tree, Tree]) -> None:
    with scratch("a", "b", "upper", "again") as (a, b, upper, again):
        build(pair[0], a)
        build(pair[1], b)
        put(compress([whole(a, b)], Compression.GZIP), upper, Whiteouts.OVERLAY, (a,))
        with overlay(upper, a) as merged:
            assert describe(merged) == describe(b)
        # and the upper directory, made a layer again, says the same
        put(diff_overlay(upper, (a,)), again, Whiteouts.OVERLAY, (a,))
        with overlay(again, a) as merged:
            assert describe(merged) == describe(b)
