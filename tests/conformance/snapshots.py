"""What every Snapshotter must do. A snapshotter is one subclass with a ``make``."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sampan.errors import Conflict, InvalidParameter, NotFound, SampanError
from sampan.kernel.openat import in_root
from sampan.layer import ChangeKind, Destination, Whiteouts, apply
from sampan.layer.stream import Chunks
from sampan.snapshot import VOLATILE, Kind, Snapshotter, records
from sampan.snapshot.rootfs import changes, detached_mount, diff, export


class SnapshotterSuite:
    """Subclass as ``TestX`` and define :meth:`make`."""

    def make(self, root: Path) -> Snapshotter:
        raise NotImplementedError

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        return tmp_path / "s"

    @pytest.fixture
    def snapshots(self, root: Path) -> Snapshotter:
        return self.make(root)

    def edit(self, snapshots: Snapshotter, key: str, action: Callable[[str], None]) -> None:
        """Run ``action`` on the mounted tree, by a path that exists only in /proc."""
        fd = detached_mount(snapshots.mounts(key), writable=True)
        try:
            action(f"/proc/self/fd/{fd}")
        finally:
            os.close(fd)

    def layer(self, snapshots: Snapshotter, name: str, parent: str | None, **files: str) -> None:
        snapshots.prepare(f"new-{name}", parent)

        def write(top: str) -> None:
            for file, text in files.items():
                Path(top, file).write_text(text)

        self.edit(snapshots, f"new-{name}", write)
        snapshots.commit(name, f"new-{name}")

    def read(self, snapshots: Snapshotter, key: str) -> dict[str, str]:
        fd = detached_mount(snapshots.mounts(key))
        try:
            top = Path(f"/proc/self/fd/{fd}")
            return {path.name: path.read_text() for path in sorted(top.iterdir())}
        finally:
            os.close(fd)

    def test_layers_stack(self, snapshots: Snapshotter) -> None:
        self.layer(snapshots, "one", None, a="1", b="1")
        self.layer(snapshots, "two", "one", b="2", c="2")
        snapshots.prepare("box", "two")
        self.edit(snapshots, "box", lambda top: Path(top, "a").unlink())
        assert self.read(snapshots, "box") == {"b": "2", "c": "2"}
        snapshots.view("look", "two")
        assert self.read(snapshots, "look") == {"a": "1", "b": "2", "c": "2"}
        snapshots.view("below", "one")
        assert self.read(snapshots, "below") == {"a": "1", "b": "1"}
        assert [info.key for info in snapshots.walk()][:2] == ["one", "two"]
        assert snapshots.stat("two").parent == "one"
        assert snapshots.stat("box").kind is Kind.ACTIVE

    def test_views_cannot_be_written(self, snapshots: Snapshotter) -> None:
        self.layer(snapshots, "one", None, a="1")
        self.layer(snapshots, "two", "one", b="1")
        for parent in ("one", "two"):
            snapshots.view(f"view-{parent}", parent)
            with pytest.raises(OSError, match="Read-only"):
                self.edit(snapshots, f"view-{parent}", lambda top: Path(top, "x").write_text(""))

    def test_reading_does_not_write(self, snapshots: Snapshotter) -> None:
        self.layer(snapshots, "one", None, a="1")
        snapshots.prepare("box", "one")
        fd = detached_mount(snapshots.mounts("box"))
        try:
            with pytest.raises(OSError, match="Read-only"):
                Path(f"/proc/self/fd/{fd}/x").write_text("")
        finally:
            os.close(fd)

    def test_difference_is_a_layer(self, snapshots: Snapshotter, tmp_path: Path) -> None:
        self.layer(snapshots, "one", None, gone="1", kept="1", changed="1")
        snapshots.prepare("box", "one")

        def work(top: str) -> None:
            Path(top, "gone").unlink()
            Path(top, "changed").write_text("2")
            Path(top, "new").mkdir()
            Path(top, "new", "file").write_text("3")

        self.edit(snapshots, "box", work)
        assert [(change.path, change.kind) for change in changes(snapshots, "box")] == [
            (b"/changed", ChangeKind.MODIFIED),
            (b"/gone", ChangeKind.DELETED),
            (b"/new", ChangeKind.ADDED),
            (b"/new/file", ChangeKind.ADDED),
        ]
        target = tmp_path / "plain"
        target.mkdir()
        (target / "gone").touch()
        with Chunks(diff(snapshots, "box")) as stream:
            apply(stream, Destination(root=target, whiteouts=Whiteouts.REMOVE))
        assert sorted(path.name for path in target.rglob("*")) == ["changed", "file", "new"]

    def test_export_is_everything(self, snapshots: Snapshotter, tmp_path: Path) -> None:
        self.layer(snapshots, "one", None, a="1")
        snapshots.prepare("box", "one")
        self.edit(snapshots, "box", lambda top: Path(top, "b").write_text("2"))
        root = detached_mount(snapshots.mounts("box"))
        try:
            with Chunks(export(root)) as stream:
                apply(stream, Destination(root=tmp_path, whiteouts=Whiteouts.LITERAL))
        finally:
            os.close(root)
        assert (tmp_path / "a").read_text() == "1"
        assert (tmp_path / "b").read_text() == "2"

    def test_refusals(self, snapshots: Snapshotter) -> None:
        self.layer(snapshots, "one", None, a="1")
        snapshots.prepare("box", "one")
        with pytest.raises(Conflict):
            snapshots.prepare("box", "one")
        with pytest.raises(Conflict):
            snapshots.prepare("one")
        with pytest.raises(NotFound):
            snapshots.prepare("other", "nothing")
        with pytest.raises(InvalidParameter):
            snapshots.prepare("other", "box")
        with pytest.raises(InvalidParameter):
            snapshots.prepare("")
        with pytest.raises(InvalidParameter):
            snapshots.mounts("one")
        with pytest.raises(InvalidParameter):
            snapshots.commit("two", "one")
        with pytest.raises(Conflict):
            snapshots.commit("one", "box")
        with pytest.raises(Conflict):
            snapshots.remove("one")
        for ask in (snapshots.mounts, snapshots.remove, snapshots.stat, snapshots.usage):
            with pytest.raises(NotFound):
                ask("nothing")
        assert self.read(snapshots, "box") == {"a": "1"}  # nothing of it did harm

    def test_removal_frees(self, snapshots: Snapshotter, root: Path) -> None:
        self.layer(snapshots, "one", None, a="1")
        snapshots.prepare("box", "one")

        def deep(top: str) -> None:
            fd = os.open(top, os.O_RDONLY)
            for _ in range(2500):  # deeper than recursion and PATH_MAX allow
                os.mkdir("d", dir_fd=fd)
                inner = os.open("d", os.O_RDONLY, dir_fd=fd)
                os.close(fd)
                fd = inner
            os.close(fd)

        self.edit(snapshots, "box", deep)
        assert snapshots.usage("box").inodes >= 2500
        snapshots.remove("box")
        snapshots.remove("one")
        assert list(snapshots.walk()) == []
        left = [path for path in root.rglob("*") if not path.name.startswith(".")]
        assert left == []

    def test_usage_is_exact(self, snapshots: Snapshotter) -> None:
        snapshots.prepare("box")

        def fill(top: str) -> None:
            Path(top, "file").write_bytes(os.urandom(100_000))
            os.link(f"{top}/file", f"{top}/link")
            Path(top, "dir").mkdir()

        self.edit(snapshots, "box", fill)
        usage = snapshots.usage("box")
        assert usage.inodes == 2
        assert 100_000 <= usage.size <= 120_000
        snapshots.commit("one", "box")
        assert snapshots.usage("one") == usage

    def test_survives_a_restart(self, snapshots: Snapshotter, root: Path) -> None:
        self.layer(snapshots, "one", None, a="1")
        snapshots.prepare("box", "one", {"who": "me"})
        snapshots.usage("one")
        before = list(snapshots.walk())
        again = self.make(root)
        assert list(again.walk()) == before
        assert again.stat("box").labels == {"who": "me"}
        assert again.mounts("box") == snapshots.mounts("box")
        assert again.sweep() == 0
        again.prepare("next", "one")
        assert self.read(again, "next") == {"a": "1"}

    def test_sweep_takes_what_a_crash_left(self, snapshots: Snapshotter, root: Path) -> None:
        self.layer(snapshots, "one", None, a="1")
        (root / "zz").mkdir()
        (root / "zz" / "file").write_text("half")
        (root / ".work" / "zz").mkdir()
        (root / ".trash" / "9").mkdir()
        (root / ".meta" / "yy").write_bytes(b"")  # torn by a power failure
        again = self.make(root)
        assert again.sweep() == 3
        assert again.sweep() == 0
        assert not (root / "zz").exists()
        assert not (root / ".meta" / "yy").exists()
        again.prepare("box", "one")
        assert self.read(again, "box") == {"a": "1"}
        again.sync()

    def test_volumes_appear_in_the_root(self, snapshots: Snapshotter, tmp_path: Path) -> None:
        from sampan.model.mount import Mount

        snapshots.prepare("box")
        self.edit(snapshots, "box", lambda top: os.symlink("/data", f"{top}/link"))
        self.edit(snapshots, "box", lambda top: os.mkdir(f"{top}/data"))
        volume = tmp_path / "volume"
        volume.mkdir()
        (volume / "file").write_text("v")
        bind = Mount(type="bind", source=str(volume), destination="/link", options=("rbind", "rw"))
        missing = Mount(type="bind", source=str(volume), destination="/nowhere")
        fd = detached_mount((*snapshots.mounts("box"), bind, missing), writable=True)
        try:
            inner = in_root(fd, "/data/file", os.O_RDWR)
            assert os.read(inner, 10) == b"v"
            os.close(inner)
        finally:
            os.close(fd)
        assert str(volume) not in Path("/proc/self/mountinfo").read_text()

    def test_volatile_is_on_the_disk_before_it_is_committed(
        self, snapshots: Snapshotter, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        snapshots.prepare("box", None, {VOLATILE: "", "kept": "1"})
        self.edit(snapshots, "box", lambda top: Path(top, "a").write_text("1"))
        kinds: list[Kind] = []

        def fail(fd: int) -> None:
            assert os.fstat(fd).st_dev == root.stat().st_dev
            kinds.append(self.make(root).stat("box").kind)
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        with monkeypatch.context() as patch:
            patch.setattr(records, "syncfs", fail)
            with pytest.raises(SampanError, match="committing snapshot one"):
                snapshots.commit("one", "box")
        assert kinds == [Kind.ACTIVE]
        for either in (snapshots, self.make(root)):
            assert either.stat("box").kind is Kind.ACTIVE
            assert not either.exists("one")
        snapshots.commit("one", "box")
        assert self.make(root).stat("one").labels == {"kept": "1"}

    def test_a_power_failure_takes_what_was_not_flushed_and_nothing_else(
        self, snapshots: Snapshotter, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[list[str]] = []

        def flush(fd: int) -> None:
            assert os.fstat(fd).st_dev == root.stat().st_dev
            found = [json.loads(path.read_text()) for path in (root / ".meta").iterdir()]
            seen.append(sorted(item["key"] for item in found if item["unsettled"]))

        boot = tmp_path / "boot"
        boot.write_text("another\n")
        monkeypatch.setattr(records, "syncfs", flush)
        self.layer(snapshots, "one", None, a="1")
        snapshots.prepare("lower", "one")
        snapshots.sync()
        snapshots.sync()  # nothing to do any more
        assert seen == [["one"]]
        self.layer(snapshots, "two", "one", b="2")
        snapshots.prepare("box", "two")
        assert self.make(root).exists("two")  # the engine was killed, the machine goes on
        monkeypatch.setattr(records, "BOOT_ID", boot)
        after = self.make(root)
        assert {info.key for info in after.walk()} == {"one", "lower", "box"}
        assert after.sweep() == 1
        # What stands on it can be used once it is there again.
        self.layer(after, "two", "one", b="2")
        after.sync()
        assert seen == [["one"], ["two"]]
        boot.write_text("a third\n")
        assert {info.key for info in self.make(root).walk()} == {"one", "lower", "two", "box"}
        assert self.read(self.make(root), "box").get("b") == "2"
