"""``docker cp`` raced by the container: CVE-2018-15664 and what came after, with mutation checks.

The race is won every time: the exchange is made from inside the look-up, and between two parts of
an archive. ``tests/security/test_archives.py`` has the same with a thread that swaps all the time.
"""

from __future__ import annotations

import ctypes
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sampan.errors import SampanError
from sampan.kernel import openat
from sampan.layer import archive_get, archive_put, copy, extract, names, tree
from tests.archives import files
from tests.security.runtime.conftest import GUARDED, both

_exchange = ctypes.CDLL(None).renameat2
LookUp = Callable[..., int]


def swap(root: Path) -> None:
    """Directory "dir" becomes a link out of the root, or that the directory again."""
    assert _exchange(-100, bytes(root / "dir"), -100, bytes(root / "link"), 2) == 0


def confined(root: Path) -> LookUp:
    """The product's look-up, with an exchange before and after."""
    real = openat.openat2

    def look_up(directory: int, path: str | bytes, *more: int) -> int:
        swap(root)
        try:
            return real(directory, path, *more)
        finally:
            swap(root)

    return look_up


def checked_first(root: Path) -> LookUp:
    """What docker did: where does the path lead inside the root; then use that, by name."""
    real = openat.openat2

    def look_up(directory: int, path: str | bytes, flags: int, resolve: int, mode: int = 0) -> int:
        os.close(real(directory, path, flags & ~(os.O_CREAT | os.O_EXCL), resolve, mode))
        swap(root)
        try:
            name = os.fsdecode(path).lstrip("/") or "."
            return os.open(name, flags | os.O_CLOEXEC, mode, dir_fd=directory)
        finally:
            swap(root)

    return look_up


@pytest.fixture
def root(tmp_path: Path, outside: Path) -> Path:
    root = tmp_path / "root"
    (root / "dir").mkdir(parents=True)
    (root / "dir" / "secret").write_text("inside")
    (root / "link").symlink_to(outside)
    (outside / "secret").write_text("of the host")
    return root


@both
def test_reading(guard: str, root: Path, outside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    look_up = confined(root) if guard == GUARDED else checked_first(root)
    monkeypatch.setattr(openat, "openat2", look_up)
    assert copy.in_root is openat.in_root
    descriptor = os.open(root, os.O_RDONLY)
    text = b""
    try:
        text = b"".join(archive_get(descriptor, "/dir/secret")[1])
    except SampanError:
        assert guard == GUARDED
    finally:
        os.close(descriptor)
    assert (b"of the host" in text) is (guard != GUARDED)


@both
def test_writing(guard: str, root: Path, outside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    look_up = confined(root) if guard == GUARDED else checked_first(root)
    for module in (extract, names):
        monkeypatch.setattr(module, "openat2", look_up)
    descriptor = os.open(root, os.O_RDONLY)
    try:
        archive_put(descriptor, "/dir", io.BytesIO(files({"pwned": b"x"})))
    except SampanError:
        assert guard == GUARDED
    finally:
        os.close(descriptor)
    assert (outside / "pwned").exists() is (guard != GUARDED)


@both
def test_reading_a_tree(
    guard: str, root: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory becomes a link while the archive that it is in is being read."""
    if guard != GUARDED:
        monkeypatch.setattr("sampan.layer.tree.DIRECTORY_FLAGS", os.O_RDONLY | os.O_CLOEXEC)
        monkeypatch.setattr(os, "O_NOFOLLOW", 0)
    enter = tree._enter

    def late(*arguments: Any) -> None:
        swap(root)
        enter(*arguments)
        swap(root)

    monkeypatch.setattr(tree, "_enter", late)
    descriptor = os.open(root, os.O_RDONLY)
    try:
        text = b"".join(archive_get(descriptor, "/")[1])
    finally:
        os.close(descriptor)
    assert b"/dir" in text
    assert (b"of the host" in text) is (guard != GUARDED)
