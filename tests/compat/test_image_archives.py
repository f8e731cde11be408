"""Archives of images go to real peers and come back: dockerd, podman, skopeo."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sampan.content.store import FileStore
from sampan.image import Image, Saved, Unpacker, commit, import_, load, save
from sampan.layer.compression import Compression
from sampan.model.reference import Reference
from sampan.snapshot.overlay import OverlaySnapshotter
from sampan.snapshot.rootfs import detached_mount
from tests.compat.dockerd import Docker, dockerd, run

__all__ = ["dockerd"]

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
NAME = Reference.parse("registry.test:5000/team/sample:1.2")
OTHER = Reference.parse("sample:latest")


def tar(files: dict[str, str]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            if name.endswith("/"):
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return out.getvalue()


class Machine:
    """A content store and snapshots of our own."""

    def __init__(self, root: Path) -> None:
        self.content = FileStore(root / "content")
        self.snapshots = OverlaySnapshotter(root / "snapshots")
        self.unpacker = Unpacker(self.content, self.snapshots)

    def sample(self, compression: Compression = Compression.GZIP) -> Image:
        """Two layers; the upper one removes a file of the lower one."""
        base = import_(
            io.BytesIO(tar({"etc/": "", "etc/keep": "1", "etc/gone": "1"})),
            self.content,
            changes=['CMD ["/bin/true"]', "ENV A=b", "LABEL who=me"],
            now=NOW,
        )
        layer = tar({"etc/": "", "etc/.wh.gone": "", "etc/new": "2"})
        return commit(
            [layer],
            self.content,
            parent=base,
            config=base.config.defaults,
            changes=["USER 1000", "EXPOSE 80"],
            created_by="sh",
            message="second",
            compression=compression,
            now=NOW,
        )

    def tree(self, image: Image) -> dict[str, str]:
        """The files of an image, unpacked."""
        parent = self.unpacker.unpack(image)
        key = f"look-{time.monotonic_ns()}"
        fd = detached_mount(self.snapshots.view(key, str(parent)))
        try:
            top = Path(f"/proc/self/fd/{fd}")
            return {
                str(path.relative_to(top)): path.read_text()
                for path in sorted(top.rglob("*"))
                if path.is_file()
            }
        finally:
            os.close(fd)
            self.snapshots.remove(key)


TREE = {"etc/keep": "1", "etc/new": "2"}


@pytest.fixture
def ours(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "ours")


@pytest.fixture
def theirs(tmp_path: Path) -> Machine:
    """A second machine that has nothing, to load what came back."""
    return Machine(tmp_path / "theirs")


def archive(machine: Machine, *images: Saved) -> bytes:
    return b"".join(save(images, machine.content))


@pytest.mark.parametrize("compression", [Compression.NONE, Compression.GZIP])
def test_docker_takes_and_returns(
    dockerd: Docker, ours: Machine, theirs: Machine, compression: Compression, tmp_path: Path
) -> None:
    image = ours.sample(compression)
    assert "Loaded image" in dockerd(
        "load", input=archive(ours, Saved(image=image, names=(NAME, OTHER)))
    )
    identity, config = dockerd(
        "inspect", "--format", "{{.Id}} {{.Config.User}} {{json .Config.Cmd}}", str(NAME)
    ).split(maxsplit=1)
    assert identity == str(image.id)
    assert config.strip() == '1000 ["/bin/true"]'
    returned = tmp_path / "returned.tar"
    dockerd("save", "-o", str(returned), str(NAME), OTHER.familiar)
    with returned.open("rb") as stream:
        loaded = load(stream, theirs.content)
    assert {name for one in loaded for name in one.names} == {NAME, OTHER}
    for one in loaded:
        assert one.image is not None
        assert one.image.id == image.id
        assert theirs.tree(one.image) == TREE
    dockerd("rmi", "-f", str(image.id))


def test_docker_takes_several_images_at_once(
    dockerd: Docker, ours: Machine, theirs: Machine
) -> None:
    first, second = ours.sample(), import_(io.BytesIO(tar({"x": "y"})), ours.content, now=NOW)
    data = archive(ours, Saved(image=first, names=(NAME,)), Saved(image=second, names=(OTHER,)))
    dockerd("load", input=data)
    ids = dockerd("images", "--no-trunc", "-q").split()
    assert set(ids) == {str(first.id), str(second.id)}
    loaded = load(io.BytesIO(data), theirs.content)
    # our own archive keeps even the manifests
    assert [one.target.digest for one in loaded] == [
        first.manifest.digest,
        second.manifest.digest,
    ]
    assert [one.names for one in loaded] == [(NAME,), (OTHER,)]


@pytest.fixture
def podman() -> Iterator[list[str]]:
    if shutil.which("podman") is None:
        pytest.skip("needs podman")
    with tempfile.TemporaryDirectory(prefix="pod-") as root:  # podman wants short paths
        command = ["podman", f"--root={root}/r", f"--runroot={root}/run", "--storage-driver=vfs"]
        yield command
        run(*command, "rmi", "-af")


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
def test_podman_takes_and_returns(
    podman: list[str], ours: Machine, theirs: Machine, form: str, tmp_path: Path
) -> None:
    image = ours.sample()
    sent, returned = tmp_path / "sent.tar", tmp_path / "returned.tar"
    sent.write_bytes(archive(ours, Saved(image=image, names=(NAME,))))
    run(*podman, "load", "-i", sent)
    assert run(*podman, "inspect", "--format", "{{.Id}}", str(NAME)).strip() == image.id.hex
    run(*podman, "save", f"--format={form}", "-o", returned, str(NAME))
    with returned.open("rb") as stream:
        (loaded,) = load(stream, theirs.content)
    assert loaded.image is not None
    assert loaded.image.config.diff_ids == image.config.diff_ids
    assert loaded.names == (NAME,)
    assert theirs.tree(loaded.image) == TREE


@pytest.mark.parametrize(
    ("source", "way"),
    [
        ("docker-archive", "docker-archive"),
        ("docker-archive", "oci-archive"),
        ("oci-archive", "oci-archive"),
        ("oci-archive", "docker-archive"),
    ],
)
def test_skopeo_copies(
    ours: Machine, theirs: Machine, source: str, way: str, tmp_path: Path
) -> None:
    if shutil.which("skopeo") is None:
        pytest.skip("needs skopeo")
    image = ours.sample()
    sent, returned = tmp_path / "sent.tar", tmp_path / "returned.tar"
    sent.write_bytes(archive(ours, Saved(image=image, names=(NAME,))))
    policy = ("skopeo", "--insecure-policy", f"--tmpdir={tmp_path}", "copy")
    run(*policy, f"{source}:{sent}", f"{way}:{returned}:{NAME}")
    with returned.open("rb") as stream:
        (loaded,) = load(stream, theirs.content)
    assert loaded.image is not None
    assert loaded.image.config.diff_ids == image.config.diff_ids
    if way == source == "oci-archive":
        assert loaded.target.digest == image.manifest.digest
    assert loaded.names == (NAME,)
    assert theirs.tree(loaded.image) == TREE


def test_skopeo_writes_zstd(ours: Machine, theirs: Machine, tmp_path: Path) -> None:
    if shutil.which("skopeo") is None:
        pytest.skip("needs skopeo")
    image = ours.sample(Compression.ZSTD)
    sent, layout = tmp_path / "sent.tar", tmp_path / "layout"
    sent.write_bytes(archive(ours, Saved(image=image, names=(NAME,))))
    policy = ("skopeo", "--insecure-policy", f"--tmpdir={tmp_path}", "copy")
    run(*policy, "--dest-compress-format=zstd", f"oci-archive:{sent}", f"oci:{layout}:x")
    archived = tmp_path / "layout.tar"
    run("tar", "-C", layout, "-cf", archived, ".")
    with archived.open("rb") as stream:
        (loaded,) = load(stream, theirs.content)
    assert loaded.image is not None
    assert theirs.tree(loaded.image) == TREE
    assert loaded.names == ()  # a bare tag names no repository
