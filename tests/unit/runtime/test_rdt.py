"""linux.intelRdt: the rules of config-linux.md, on a directory that stands in for resctrl."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sampan.errors import InvalidParameter, StartFailed
from sampan.kernel import resctrl
from sampan.model import oci
from sampan.runtime import rdt

_mkdir, _rmdir = os.mkdir, os.rmdir
PRESENT = "    L3:0=7ff;1=7ff\n    MB:0=100;1= 50\n"


class Standin:
    """A tree in which groups come and go with their files, as the kernel's do."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.refused = ""
        (root / "info").mkdir(parents=True)
        (root / "info/last_cmd_status").write_text("out of groups\n")
        self.fill(root)

    def fill(self, path: Path) -> None:
        if not path.exists():
            _mkdir(path)
        _mkdir(path / "mon_groups")
        (path / "schemata").write_text(PRESENT)
        (path / "tasks").touch()

    def mkdir(self, path: str, mode: int = 0o777) -> None:
        if self.refused and self.refused in path:
            raise OSError(28, "No space left on device", path)
        if Path(path).exists():
            raise FileExistsError(17, "File exists", path)
        self.fill(Path(path))

    def rmdir(self, path: str) -> None:
        os.stat(path)
        for directory, _, files in os.walk(path, topdown=False):
            for name in files:
                os.unlink(f"{directory}/{name}")
            _rmdir(directory)

    def text(self, path: str) -> str:
        return (self.root / path).read_text()

    def groups(self) -> list[str]:
        found = [path.name for path in self.root.iterdir() if path.is_dir()]
        return sorted(set(found) - {"info", "mon_groups"})


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Standin:
    made = Standin(tmp_path / "resctrl")
    monkeypatch.setattr(resctrl, "ROOT", str(made.root))
    monkeypatch.setattr(os, "mkdir", made.mkdir)
    monkeypatch.setattr(os, "rmdir", made.rmdir)
    return made


def assign(wanted: oci.IntelRdt) -> rdt.Assigned:
    return rdt.assign(rdt.group(wanted, "box"), 7)


def test_group_of_its_own_goes_with_the_container(tree: Standin) -> None:
    done = assign({"l3CacheSchema": "L3:0=f", "memBwSchema": "MB:0=20"})
    assert tree.text("box/tasks") == "7"
    # A stand-in has what was written last, at its beginning.
    assert tree.text("box/schemata").startswith("MB:0=20\n")
    assert done.made == (f"{tree.root}/box",)
    rdt.join(done.directories, 8)
    assert tree.text("box/tasks") == "8"
    rdt.change(done.directories[0], ["L3:0=3"])
    assert tree.text("box/schemata").startswith("L3:0=3\n")
    rdt.release(done.made)
    assert tree.groups() == []


def test_lines_are_written_in_their_order(tree: Standin, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    monkeypatch.setattr(resctrl, "set_schemata", lambda path, line: written.append(line))
    schemata = ["L3:0=1", "MB:0=10"]
    assign({"memBwSchema": "MB:0=20", "l3CacheSchema": "L3:0=f", "schemata": schemata})
    assert written == ["L3:0=f", "MB:0=20", *schemata]
    assign({"closID": "/"})
    assert len(written) == 4, "nothing is written where nothing is wanted"


def test_named_class_is_made_and_stays(tree: Standin) -> None:
    done = assign({"closID": "gold", "schemata": ["L3:0=f"]})
    assert done.made == ()
    assert tree.groups() == ["gold"]
    assert tree.text("gold/tasks") == "7"


def test_named_class_without_shares_must_be_there(tree: Standin) -> None:
    with pytest.raises(StartFailed, match="gold/schemata does not exist"):
        assign({"closID": "gold"})
    assert tree.groups() == []
    tree.mkdir(f"{tree.root}/gold")
    assert assign({"closID": "gold"}).made == ()
    assert tree.text("gold/schemata") == PRESENT


@pytest.mark.parametrize(
    ("line", "fits"),
    [
        ("L3:0=7ff", True),
        ("L3:1=07FF;0=7ff", True),
        ("L3:0=7f", False),
        ("L3:2=7ff", False),
        ("MB:0=100;1=50", True),
        ("MB:1=5", False),
        ("L2:0=1", False),
    ],
)
def test_class_that_is_there_must_have_the_shares(tree: Standin, line: str, fits: bool) -> None:
    tree.mkdir(f"{tree.root}/gold")
    key = "memBwSchema" if line.startswith("MB") else "l3CacheSchema"
    wanted: oci.IntelRdt = {"closID": "gold", key: line}  # type: ignore[misc]
    if fits:
        assign(wanted)
        return
    with pytest.raises(StartFailed, match="does not have"):
        assign(wanted)
    assert tree.text("gold/tasks") == ""


def test_default_class(tree: Standin) -> None:
    assert assign({"closID": "/"}).directories == (str(tree.root),)
    assert tree.text("tasks") == "7"


def test_monitoring(tree: Standin) -> None:
    done = assign({"closID": "/", "enableMonitoring": True})
    assert tree.text("mon_groups/box/tasks") == "7"
    assert done.made == (f"{tree.root}/mon_groups/box",)
    with pytest.raises(StartFailed, match="enableMonitoring"):
        assign({"closID": "/", "enableMonitoring": True})
    rdt.release(done.made)
    rdt.release(done.made)
    assert list((tree.root / "mon_groups").iterdir()) == []


@pytest.mark.parametrize("refused", ["box", "mon_groups/box"])
def test_what_fails_leaves_nothing(tree: Standin, refused: str) -> None:
    tree.refused = refused
    with pytest.raises(StartFailed, match="No space left"):
        assign({"enableMonitoring": True, "schemata": ["L3:0=f"]})
    assert tree.groups() == []


def test_refusal_in_the_kernels_words(tree: Standin, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int, data: bytes) -> int:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "write", refuse)
    with pytest.raises(StartFailed, match=r"schemata: Invalid argument \(out of groups\)"):
        assign({"schemata": ["L3:0=f"]})
    assert tree.groups() == []
    with pytest.raises(InvalidParameter, match="out of groups"):
        rdt.change(str(tree.root), ["L3:0=f"])


@pytest.mark.parametrize(
    "wanted",
    [
        {"closID": "a/b"},
        {"closID": ".."},
        {"closID": "info"},
        {"closID": "mon_groups"},
        {"l3CacheSchema": "L3:0=f\nMB:0=1"},
        {"memBwSchema": "L3:0=f"},
        {"schemata": ["x"]},
    ],
)
def test_refused_by_name(wanted: oci.IntelRdt) -> None:
    with pytest.raises(InvalidParameter, match=r"linux\.intelRdt"):
        rdt.group(wanted, "box")
