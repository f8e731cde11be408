"""Archives written by GNU tar in all its formats are extracted as GNU tar does, and back."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from sampan.layer import Destination, Whiteouts, apply, diff_trees
from tests.property.trees import describe

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="owners and device nodes need root")
TAR = shutil.which("tar") or "tar"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Everything a tar can hold."""
    root = tmp_path / "tree"
    (root / "dir" / "sub").mkdir(parents=True)
    (root / "file").write_bytes(b"text" * 1000)
    (root / "empty").touch()
    os.link(root / "file", root / "dir" / "hard")
    os.symlink("../file", root / "dir" / "symlink")
    os.mkfifo(root / "fifo", 0o600)
    os.mknod(root / "null", 0o020666, os.makedev(1, 3))
    (root / "setuid").write_bytes(b"x")
    (root / "setuid").chmod(0o4755)
    (root / "dir").chmod(0o1777)
    for number, path in enumerate(sorted(root.rglob("*"))):
        os.utime(path, (1_600_000_000 + number,) * 2, follow_symlinks=False)
    os.utime(root, (1_600_000_000,) * 2)
    return root


def create(tree: Path, archive: Path, *options: str) -> None:
    subprocess.run([TAR, "-C", tree, "--numeric-owner", *options, "-cf", archive, "."], check=True)


def extract(archive: Path, root: Path) -> None:
    root.mkdir()
    with archive.open("rb") as stream:
        apply(stream, Destination(root=root, whiteouts=Whiteouts.LITERAL))


@pytest.mark.parametrize("form", ["v7", "ustar", "oldgnu", "gnu", "posix"])
def test_formats(form: str, tree: Path, tmp_path: Path) -> None:
    if form != "v7":
        long = tree / ("l" * 90) / ("o" * 90)
        long.mkdir(parents=True)
        (long / "ng").write_text("name")
        if form not in ("ustar",):
            (tree / ("n" * 200)).write_text("longer")
            os.symlink("t/" * 150, tree / "longlink")
            (tree / "owned").write_text("x")
            os.chown(tree / "owned", 3_000_000, 4_000_000)
    if form == "v7":
        for name in ("fifo", "null"):
            (tree / name).unlink()
    # whole seconds, as all but posix can say
    for path in tree.rglob("*"):
        os.utime(path, (1_600_000_000,) * 2, follow_symlinks=False)
    create(tree, tmp_path / "a.tar", f"--format={form}")
    extract(tmp_path / "a.tar", tmp_path / "out")
    assert describe(tmp_path / "out") == describe(tree)


@pytest.mark.parametrize(
    "options",
    [
        ("--format=gnu",),
        ("--format=posix", "--sparse-version=0.0"),
        ("--format=posix", "--sparse-version=0.1"),
        ("--format=posix", "--sparse-version=1.0"),
    ],
)
def test_sparse(options: tuple[str, ...], tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    with (tree / "holes").open("wb") as file:
        for number in range(40):  # more segments than a header holds
            file.seek(number << 20)
            file.write(b"%d" % number * 700)
        file.truncate(50 << 20)
    with (tree / "hole").open("wb") as file:
        file.truncate(1 << 20)
    (tree / "after").write_text("still in step")
    create(tree, tmp_path / "a.tar", "--sparse", *options)
    assert (tmp_path / "a.tar").stat().st_size < 2 << 20
    extract(tmp_path / "a.tar", tmp_path / "out")
    for name in ("holes", "hole", "after"):
        assert (tmp_path / "out" / name).read_bytes() == (tree / name).read_bytes()
    assert (tmp_path / "out" / "holes").stat().st_blocks < 4096  # the holes stayed holes


def test_attributes(tree: Path, tmp_path: Path) -> None:
    os.setxattr(tree / "file", "user.a=b%c", b"\0\xff")
    capability = bytes.fromhex("0100000202000000000000000000000000000000")
    os.setxattr(tree / "setuid", "security.capability", capability)
    create(tree, tmp_path / "a.tar", "--format=posix", "--xattrs", "--xattrs-include=*")
    extract(tmp_path / "a.tar", tmp_path / "out")
    assert describe(tmp_path / "out") == describe(tree)


def test_ours_is_read_by_gnu_tar(tree: Path, tmp_path: Path) -> None:
    os.setxattr(tree / "file", "user.a=b%c", b"value")
    (tree / ("n" * 200)).write_text("long")
    os.utime(tree / "empty", ns=(1, 1_600_000_000_123_456_789))
    fd = os.open(tree, os.O_RDONLY)
    try:
        (tmp_path / "a.tar").write_bytes(b"".join(diff_trees(None, fd)))
    finally:
        os.close(fd)
    out = tmp_path / "out"
    out.mkdir()
    flags = ("--xattrs", "--xattrs-include=*", "--numeric-owner", "--same-owner", "-p")
    result = subprocess.run(
        [TAR, "-C", out, *flags, "-xf", tmp_path / "a.tar"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert result.stderr == ""
    assert describe(out) == describe(tree)
