"""The snapshotters there are, held to the suite."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sampan.errors import Unsupported
from sampan.snapshot import VOLATILE, Snapshotter
from sampan.snapshot.copy import CopySnapshotter
from sampan.snapshot.overlay import OverlaySnapshotter
from sampan.snapshot.rootfs import detached_mount
from tests.conformance.snapshots import SnapshotterSuite

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")


class TestOverlaySnapshotter(SnapshotterSuite):
    def make(self, root: Path) -> Snapshotter:
        return OverlaySnapshotter(root)

    def test_many_layers(self, snapshots: Snapshotter) -> None:
        parent = None
        for number in range(130):
            self.layer(snapshots, f"layer-{number}", parent, **{f"f{number}": "x"})
            parent = f"layer-{number}"
        snapshots.prepare("box", parent)
        (mount,) = snapshots.mounts("box")
        assert len(self.read(snapshots, "box")) == 130
        paths = next(option for option in mount.options if option.startswith("lowerdir="))
        names = [path.rpartition("/")[2] for path in paths.split(":")]
        assert sum(map(len, names)) < 130 * 3

    def test_layers_unpacked_apart_are_put_together(self, snapshots: Snapshotter) -> None:
        self.layer(snapshots, "one", None, a="1")
        snapshots.prepare("apart")
        self.edit(snapshots, "apart", lambda top: Path(top, "b").write_text("2"))
        snapshots.commit("two", "apart", parent="one")
        snapshots.prepare("box", "two")
        assert self.read(snapshots, "box") == {"a": "1", "b": "2"}

    def test_volatile_can_be_mounted_again(self, snapshots: Snapshotter, root: Path) -> None:
        self.layer(snapshots, "one", None, a="1")
        (mount,) = snapshots.prepare("box", "one", {VOLATILE: ""})
        options = dict(option.split("=") for option in mount.options if "=" in option)
        for turn in "xy":
            self.edit(snapshots, "box", lambda top, turn=turn: Path(top, turn).write_text(turn))
            # the kernel's own note that it was mounted so, which refuses any other mount
            assert Path(options["workdir"], "work", "incompat", "volatile").is_dir()
            with pytest.raises(OSError, match="Invalid argument"):
                detached_mount((mount,), writable=True)
        assert self.read(snapshots, "box") == {"a": "1", "x": "x", "y": "y"}
        again = self.make(root)  # as after the engine was killed
        self.edit(again, "box", lambda top: Path(top, "z").write_text("z"))
        again.commit("two", "box")
        again.prepare("next", "two")
        assert self.read(again, "next") == {"a": "1", "x": "x", "y": "y", "z": "z"}


class TestCopySnapshotter(SnapshotterSuite):
    def make(self, root: Path) -> Snapshotter:
        return CopySnapshotter(root)

    def test_no_other_parent(self, snapshots: Snapshotter) -> None:
        self.layer(snapshots, "one", None, a="1")
        snapshots.prepare("apart")
        with pytest.raises(Unsupported):
            snapshots.commit("two", "apart", parent="one")

    def test_no_limits(self, snapshots: Snapshotter) -> None:
        snapshots.prepare("box")
        with pytest.raises(Unsupported, match="--storage-opt size: the storage driver vfs limits"):
            snapshots.limit("box", 1 << 20)
