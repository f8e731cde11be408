"""What COPY takes from a tree, under which names, and when its key changes."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sampan.build.copying import ContentHashes, Owner, archive, digest, items, parent
from sampan.build.filemode import change_mode
from sampan.build.selection import Tree
from sampan.build.steps import CopyStep
from sampan.dockerfile.heredoc import Heredoc
from sampan.dockerfile.ignore import IgnoreMatcher
from sampan.errors import InvalidParameter, NotFound

ROOT = Owner(uid=0, gid=0)


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    for name in ("a.txt", "b.txt", "d/one", "d/sub/two.o", "d/sub/three", "e/deep/x/y"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / "link").symlink_to("a.txt")
    (tmp_path / "d" / "inner").symlink_to("/etc/passwd")
    (tmp_path / "out").symlink_to("/etc/passwd")
    (tmp_path / "run.sh").write_text("x")
    (tmp_path / "run.sh").chmod(0o755)
    root = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield Tree(root=root)
    os.close(root)


def copy(*sources: str, to: str = "/t/", **options: object) -> CopyStep:
    defaults: dict[str, object] = {
        "add": False,
        "from_": "",
        "inline": (),
        "chown": "",
        "chmod": "",
        "link": False,
        "parents": False,
        "exclude": (),
        "keep_git_dir": False,
        "checksum": "",
        "unpack": None,
    }
    return CopyStep(sources=sources, destination=to, **{**defaults, **options})  # type: ignore[arg-type]


def names(tree: Tree | None, step: CopyStep, *, existing: bool = False) -> list[str]:
    found = items(step, tree, owner=ROOT, destination_is_directory=existing, mtime=0)
    return [os.fsdecode(item.entry.name) for item in found]


def test_a_file_goes_into_a_directory_or_becomes_the_destination(tree: Tree) -> None:
    assert names(tree, copy("a.txt")) == ["t/a.txt"]
    assert names(tree, copy("a.txt", to="/t/x")) == ["t/x"]
    assert names(tree, copy("a.txt", to="/t/x"), existing=True) == ["t/x/a.txt"]


def test_a_directory_brings_its_contents(tree: Tree) -> None:
    found = names(tree, copy("d", to="/t"))
    assert found == ["t", "t/inner", "t/one", "t/sub", "t/sub/three", "t/sub/two.o"]


def test_wildcards_exclusions_and_parents(tree: Tree) -> None:
    assert names(tree, copy("*.txt")) == ["t/a.txt", "t/b.txt"]
    assert names(tree, copy("d", exclude=("**/*.o", "inner"))) == [
        "t",
        "t/one",
        "t/sub",
        "t/sub/three",
    ]
    assert (
        names(tree, copy("e/deep/x/y", parents=True))
        == [
            "t/e",
            "t/e/deep",
            "t/e/deep/x",
            "t/e/deep/x/y",
        ]
        or names(tree, copy("e/deep/x/y", parents=True))[-1] == "t/e/deep/x/y"
    )
    assert names(tree, copy("e/./deep/x/y", parents=True))[-1] == "t/deep/x/y"
    assert names(tree, copy("**/y")) == ["t/y"]


def test_ignored_files_are_not_there(tree: Tree) -> None:
    hidden = Tree(root=tree.root, ignore=IgnoreMatcher(["*.txt", "d/sub"]))
    assert names(hidden, copy("d")) == ["t", "t/inner", "t/one"]
    with pytest.raises(NotFound, match=r'"/a.txt": not found'):
        names(hidden, copy("a.txt"))
    assert names(tree, copy("nothing*")) == [], "a pattern may match nothing"


def test_links_cannot_reach_the_host(tree: Tree) -> None:
    with pytest.raises(NotFound):
        names(tree, copy("out"))
    with pytest.raises(NotFound):
        names(tree, copy("../../../etc/passwd"))


def test_a_source_link_is_followed_inside_links_are_kept(tree: Tree) -> None:
    data = b"".join(
        archive(
            items(copy("link", "d"), tree, owner=ROOT, destination_is_directory=True, mtime=0),
            lambda name: False,
            parent("", ROOT, 0),
        )
    )
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert tar.getmember("t/link").isreg()
        member = tar.extractfile("t/link")
        assert member is not None
        assert member.read() == b"a.txt"
        assert tar.getmember("t/inner").linkname == "/etc/passwd"
        assert {member.uid for member in tar} == {0}


def key(tree: Tree | None, step: CopyStep, hashes: ContentHashes | None = None) -> str:
    found = items(step, tree, owner=ROOT, destination_is_directory=False, mtime=0)
    return digest(found, hashes or ContentHashes())


def test_the_key_follows_content_and_mode_not_time(tree: Tree, tmp_path: Path) -> None:
    hashes = ContentHashes()
    before = key(tree, copy("d"), hashes)
    os.utime(tmp_path / "d" / "one", (1, 1))
    assert key(tree, copy("d"), hashes) == before
    (tmp_path / "d" / "one").write_text("ONE!!")
    changed = key(tree, copy("d"), hashes)
    assert changed != before
    (tmp_path / "d" / "one").chmod(0o600)
    assert key(tree, copy("d"), hashes) != changed


def test_here_documents() -> None:
    document = Heredoc(name="E", expand=True, strip_tabs=False, content="hi\n")
    step = copy(to="/f", inline=(document,), chmod="0600")
    (item,) = items(step, None, owner=None, destination_is_directory=False, mtime=5)
    assert (item.entry.name, item.entry.mode, item.entry.mtime, item.data) == (
        b"f",
        0o600,
        5,
        b"hi\n",
    )


@pytest.mark.parametrize(
    ("text", "mode", "directory", "result"),
    [
        ("755", 0o644, False, 0o755),
        ("u=rwX,go=rX", 0o600, True, 0o755),
        ("u=rwX,go=rX", 0o600, False, 0o644),
        ("+x", 0o644, False, 0o755),
        ("g=u", 0o640, False, 0o660),
        ("o-rwx", 0o777, False, 0o770),
        ("u+s,+t", 0o755, False, 0o5755),
    ],
)
def test_modes(text: str, mode: int, directory: bool, result: int) -> None:
    assert change_mode(text, mode, directory) == result


@pytest.mark.parametrize("text", ["8", "x", "u", "77777", "u=q"])
def test_wrong_modes(text: str) -> None:
    with pytest.raises(InvalidParameter, match="invalid chmod"):
        change_mode(text, 0, False)


def _members(*copies: CopyStep, tree: Tree, present: tuple[str, ...] = ()) -> dict[str, str]:
    """What a copy puts where: owner and mode of each name."""
    found = b"".join(
        archive(
            (
                item
                for one in copies
                for item in items(
                    one, tree, owner=Owner(uid=3, gid=4), destination_is_directory=False, mtime=0
                )
            ),
            lambda name: name.decode() in present,
            parent(copies[0].chmod, Owner(uid=3, gid=4), 0),
        )
    )
    with tarfile.open(fileobj=io.BytesIO(found)) as opened:
        return {one.name: f"{one.uid}:{one.gid} {one.mode:o}" for one in opened}


def test_directories_a_copy_makes_on_its_way(tree: Tree) -> None:
    """They have the copy's owner and mode; what is copied is a directory's contents, not itself."""
    step = replace(copy("d/sub"), destination="/new/place")
    assert _members(step, tree=tree)["new"] == "3:4 755"
    loud = replace(step, chmod="700")
    assert _members(loud, tree=tree)["new/place"] == "3:4 700"
    letters = replace(step, chmod="u=rwx,go=")
    assert _members(letters, tree=tree)["new"] == "3:4 755", "there is nothing to change"
    assert "new" not in _members(step, tree=tree, present=("new",))
    whole = replace(copy("d"), destination="/there")
    names = _members(whole, tree=tree, present=("there", "there/sub"))
    assert "there" not in names, "it keeps its own attributes"
    assert "there/sub" in names, "those inside get the source's"
