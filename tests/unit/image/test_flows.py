"""Loading, importing, committing, saving, unpacking: over a real store, a fake snapshotter."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sampan.content.store import FileStore
from sampan.errors import (
    ArchiveRefused,
    Conflict,
    DigestMismatch,
    InvalidParameter,
    NotFound,
    Unavailable,
)
from sampan.image import (
    Image,
    LayerProgress,
    Saved,
    Unpacker,
    commit,
    compress_layers,
    import_,
    load,
    make_index,
    open_image,
    save,
    steps,
)
from sampan.image.bootstrap import plan
from sampan.image.variants import variants
from sampan.layer.compression import Compression, detect
from sampan.model.descriptor import Descriptor
from sampan.model.digest import Digest
from sampan.model.mount import Mount
from sampan.model.platform import Platform
from sampan.model.reference import Reference
from sampan.snapshot.copy import CopySnapshotter
from sampan.wire.container import ImageConfig
from tests.archives import (
    SYMLINK,
    config,
    digest,
    docker_archive,
    files,
    member,
    oci_archive,
    tar,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
NAME = Reference.parse("sample:1")
LAYER = files({"a": b"1"})
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="owners need root")


@pytest.fixture
def content(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "content")


def only(found: tuple[object, ...]) -> Image:
    (loaded,) = found
    image: Image | None = loaded.image  # type: ignore[attr-defined]
    assert image is not None
    return image


# load


def test_docker_archive(content: FileStore) -> None:
    packed = gzip.compress(LAYER, mtime=0)
    second = files({"b": b"2"})
    archive = docker_archive(packed, second, tags=["sample", "x.test/y:2"], plain=[LAYER, second])
    (loaded,) = load(io.BytesIO(gzip.compress(archive)), content)
    assert loaded.names == (Reference.parse("sample:latest"), Reference.parse("x.test/y:2"))
    image = only((loaded,))
    assert str(image.id) == digest(config([LAYER, second]))
    assert [layer.media_type for layer in image.manifest.layers] == [
        "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.oci.image.layer.v1.tar",
    ]
    assert open_image(content, loaded.target) == image
    # nothing but what the image needs was kept
    kept = {info.digest for info in content.walk()}
    assert kept == {image.manifest.digest, *(blob.digest for blob in image.manifest.blobs)}


def test_same_archive_twice_is_the_same(content: FileStore) -> None:
    archive = docker_archive(LAYER)
    assert load(io.BytesIO(archive), content) == load(io.BytesIO(archive), content)


def test_large_layers_are_spooled(content: FileStore) -> None:
    layer = files({"big": os.urandom(9 << 20)})
    image = only(load(io.BytesIO(docker_archive(layer)), content))
    assert content.path(image.manifest.layers[0].digest).read_bytes() == layer


def test_symlinked_layers(content: FileStore) -> None:
    """Docker 1.10 to 24 wrote a layer that occurs twice as a link."""
    document = config([LAYER, LAYER])
    manifest = [{"Config": "c.json", "RepoTags": None, "Layers": ["x/layer.tar", "y/layer.tar"]}]
    archive = tar(
        member("x/layer.tar", LAYER),
        member("y/layer.tar", type=SYMLINK, link="../x/layer.tar"),
        member("c.json", document),
        member("manifest.json", json.dumps(manifest).encode()),
    )
    (loaded,) = load(io.BytesIO(archive), content)
    assert loaded.names == ()
    assert len(only((loaded,)).manifest.layers) == 2


def test_repositories_of_old(content: FileStore) -> None:
    """Before Docker 1.10 there was no manifest.json."""
    low, top = "1" * 64, "2" * 64
    settings = {"Cmd": ["sh"], "Env": ["A=b"]}
    archive = files(
        {
            f"{low}/json": json.dumps({"id": low, "created": "2014-01-01T00:00:00Z"}).encode(),
            f"{low}/layer.tar": LAYER,
            f"{low}/VERSION": b"1.0",
            f"{top}/json": json.dumps(
                {
                    "id": top,
                    "parent": low,
                    "architecture": "amd64",
                    "os": "linux",
                    "config": settings,
                    "container_config": {"Cmd": ["/bin/sh", "-c", "touch b"]},
                }
            ).encode(),
            f"{top}/layer.tar": files({"b": b"2"}),
            "repositories": json.dumps({"sample": {"1": top}}).encode(),
        }
    )
    (loaded,) = load(io.BytesIO(archive), content)
    image = only((loaded,))
    assert loaded.names == (NAME,)
    assert image.config.defaults.cmd == ["sh"]
    assert [step.created_by for step in steps(image)] == ["", "/bin/sh -c touch b"]
    assert image.config.diff_ids == (Digest.of(LAYER), Digest.of(files({"b": b"2"})))


def test_oci_layout(content: FileStore) -> None:
    image = only(load(io.BytesIO(oci_archive(LAYER)), content))
    assert str(image.id) == digest(config([LAYER]))


def test_both_layouts_in_one_give_names_from_both(content: FileStore, tmp_path: Path) -> None:
    image = only(load(io.BytesIO(docker_archive(LAYER, tags=[])), content))
    archive = b"".join(save([Saved(image=image, names=(NAME,))], content))
    (loaded,) = load(io.BytesIO(archive), FileStore(tmp_path / "other"))
    assert loaded.names == (NAME,)
    assert loaded.target.digest == image.manifest.digest


def test_platforms(content: FileStore, tmp_path: Path) -> None:
    """An index goes out with the platforms that are here, and comes back."""
    image = only(load(io.BytesIO(docker_archive(LAYER)), content))
    absent = Descriptor(
        media_type=image.manifest.media_type,
        digest=Digest.of(b"never pulled"),
        size=12,
        platform=Platform.parse("linux/s390x"),
    )
    here = image.manifest.descriptor
    index = make_index(
        [Descriptor(media_type=here.media_type, digest=here.digest, size=here.size,
                    platform=image.platform), absent]
    )  # fmt: skip
    content.add(index.raw)
    whole = open_image(content, index.descriptor, Platform.parse("linux/amd64"))
    saved = Saved(image=whole, names=(NAME,), all_platforms=True)
    other = FileStore(tmp_path / "other")
    amd64, s390x = Platform.parse("linux/amd64"), Platform.parse("linux/s390x")
    archive = b"".join(save([saved], content))
    (loaded,) = load(io.BytesIO(archive), other, platforms=[amd64])
    assert loaded.target.digest == index.digest
    assert only((loaded,)).id == image.id
    for asked in (archive, docker_archive(LAYER)):
        with pytest.raises(NotFound):
            load(io.BytesIO(asked), FileStore(tmp_path / "none"), platforms=[s390x])
    (again,) = load(io.BytesIO(archive), FileStore(tmp_path / "all"))
    assert only((again,)).id == image.id
    states = [(str(item.platform), item.whole) for item in variants(other, index.descriptor)]
    assert states == [("linux/amd64", True), ("linux/s390x", False)]


def test_saving_is_deterministic(content: FileStore) -> None:
    image = only(load(io.BytesIO(docker_archive(LAYER)), content))
    saved = [Saved(image=image, names=(NAME,))]
    first = b"".join(save(saved, content))
    assert first == b"".join(save(saved, content))


# create


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_import(content: FileStore, pack: object) -> None:
    data = pack(LAYER)  # type: ignore[operator]
    image = import_(
        io.BytesIO(data),
        content,
        changes=["CMD echo hi", "ENV A=b C=d", "EXPOSE 80/tcp", "WORKDIR /w"],
        message="from somewhere",
        platform=Platform.parse("linux/arm64"),
        now=NOW,
    )
    assert image.config.diff_ids == (Digest.of(LAYER),)
    assert image.config.defaults.cmd == ["/bin/sh", "-c", "echo hi"]
    assert image.config.defaults.env == ["A=b", "C=d"]
    assert image.config.created == "2026-01-02T03:04:05.678901000Z"
    assert str(image.platform) == "linux/arm64"
    assert len(list(content.walk())) == 3
    assert open_image(content, image.target) == image


@pytest.mark.parametrize(
    ("data", "changes"),
    [(b"rubbish" * 100, []), (LAYER, ["RUN x"]), (LAYER[:600], []), (LAYER, ["EXPOSE x"])],
)
def test_import_refused_keeps_nothing(content: FileStore, data: bytes, changes: list[str]) -> None:
    with pytest.raises(InvalidParameter):
        import_(io.BytesIO(data), content, changes=changes, now=NOW)
    assert list(content.walk()) == []


def test_commit_goes_on_from_its_parent(content: FileStore) -> None:
    base = import_(io.BytesIO(LAYER), content, changes=["ENV A=b"], now=NOW)
    child = commit(
        [files({"b": b"2"})],
        content,
        parent=base,
        config=base.config.defaults,
        changes=["LABEL x=y"],
        author="me",
        message="why",
        created_by="sh",
        container="c0ffee",
        compression=Compression.ZSTD,
        now=NOW,
    )
    assert child.config.diff_ids == (*base.config.diff_ids, Digest.of(files({"b": b"2"})))
    assert child.manifest.layers[0] == base.manifest.layers[0]
    assert child.config.defaults == ImageConfig(env=["A=b"], labels={"x": "y"})
    last = steps(child)[-1]
    assert (last.created_by, last.comment, last.author) == ("sh", "why", "me")


def test_commit_without_changes_adds_no_layer(content: FileStore) -> None:
    base = import_(io.BytesIO(LAYER), content, now=NOW)
    child = commit([bytes(1024)], content, parent=base, config=ImageConfig(), now=NOW)
    assert child.config.diff_ids == base.config.diff_ids
    assert steps(child)[-1].layer is None
    assert child.id != base.id


@pytest.mark.parametrize("compression", [Compression.GZIP, Compression.ZSTD])
def test_layers_are_compressed_for_transfer(content: FileStore, compression: Compression) -> None:
    packed = gzip.compress(files({"b": b"2"}), mtime=0)
    plain = [LAYER, files({"b": b"2"})]
    image = only(load(io.BytesIO(docker_archive(LAYER, packed, plain=plain)), content))
    converted = compress_layers(image, content, compression=compression)
    assert converted.id == image.id
    first, second = converted.manifest.layers
    assert first.media_type.endswith(f"+{compression}")
    assert detect(content.read(first.digest)) is compression
    assert second == image.manifest.layers[1]
    assert open_image(content, converted.target) == converted
    assert compress_layers(converted, content) is converted


# unpack


@needs_root
class TestUnpacking:
    @pytest.fixture
    def snapshots(self, tmp_path: Path) -> CopySnapshotter:
        return CopySnapshotter(tmp_path / "snapshots")

    def test_once_for_many(self, content: FileStore, tmp_path: Path) -> None:
        second = files({"b": b"2"})
        image = only(load(io.BytesIO(docker_archive(LAYER, second)), content))
        prepared: list[str] = []

        class Counting(CopySnapshotter):
            def prepare(
                self, key: str, parent: str | None = None, labels: Mapping[str, str] | None = None
            ) -> tuple[Mount, ...]:
                prepared.append(key)
                return super().prepare(key, parent, labels)

        snapshots = Counting(tmp_path / "snapshots")
        unpacker = Unpacker(content, snapshots)
        results: list[Digest | None] = []
        barrier = threading.Barrier(5)

        def work() -> None:
            barrier.wait(30)
            results.append(unpacker.unpack(image))

        threads = [threading.Thread(target=work) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == [image.chain_id] * 5
        assert len(prepared) == 2
        assert {info.key for info in snapshots.walk()} == {str(one) for one in image.chain_ids}

    def test_progress(self, content: FileStore, snapshots: CopySnapshotter) -> None:
        image = only(load(io.BytesIO(docker_archive(LAYER)), content))
        seen: list[LayerProgress] = []
        Unpacker(content, snapshots).unpack(image, progress=seen.append)
        assert seen[0].current == seen[0].total == len(LAYER)
        assert [one.done for one in seen] == [False] * (len(seen) - 1) + [True]

    def test_another_process_was_faster(
        self, content: FileStore, snapshots: CopySnapshotter
    ) -> None:
        unpacker = Unpacker(content, snapshots)
        unpacker.layer(io.BytesIO(LAYER), Digest.of(LAYER), "one", None)
        unpacker.layer(io.BytesIO(LAYER), Digest.of(LAYER), "one", None)
        assert [info.key for info in snapshots.walk()] == ["one"]

    def test_failure_leaves_nothing(self, content: FileStore, snapshots: CopySnapshotter) -> None:
        unpacker = Unpacker(content, snapshots)
        with pytest.raises(DigestMismatch):
            unpacker.layer(io.BytesIO(LAYER), Digest.of(b"other"), "one", None)
        with pytest.raises(ArchiveRefused):
            unpacker.layer(io.BytesIO(LAYER[:700]), Digest.of(LAYER), "one", None)
        assert list(snapshots.walk()) == []
        assert snapshots.sweep() == 0

    def test_while_it_downloads(self, content: FileStore, snapshots: CopySnapshotter) -> None:
        layer = gzip.compress(files({"big": os.urandom(3 << 20)}), mtime=0)
        plain = gzip.decompress(layer)
        image = only(load(io.BytesIO(docker_archive(layer, plain=[plain])), content))
        content.delete(image.manifest.layers[0].digest)
        done: list[Digest | None] = []
        half = threading.Event()

        def progress(step: LayerProgress) -> None:
            if step.current >= len(layer) // 3:
                half.set()

        unpacker = Unpacker(content, snapshots)
        thread = threading.Thread(
            target=lambda: done.append(unpacker.unpack(image, progress=progress, follow=30))
        )
        thread.start()
        with content.writer(expected=image.manifest.layers[0].digest) as writer:
            writer.write(layer[: len(layer) // 2])
            assert half.wait(30)  # unpacking is under way before the download is complete
            writer.write(layer[len(layer) // 2 :])
            writer.commit()
        thread.join()
        assert done == [image.chain_id]

    def test_download_that_stops(self, content: FileStore, snapshots: CopySnapshotter) -> None:
        image = only(load(io.BytesIO(docker_archive(LAYER)), content))
        content.delete(image.manifest.layers[0].digest)
        with content.writer(expected=image.manifest.layers[0].digest) as writer:
            writer.write(LAYER[:100])
            with pytest.raises(Unavailable, match="stopped arriving"):
                Unpacker(content, snapshots).unpack(image, follow=0.01)
        assert list(snapshots.walk()) == []

    def test_conflict_is_told_apart(self, content: FileStore, snapshots: CopySnapshotter) -> None:
        """A name that somebody else takes for something unfinished is an error, not success."""
        snapshots.prepare("one")
        with pytest.raises(Conflict):
            snapshots.commit("one", "one")


# bootstrap


def test_bootstrap_plan() -> None:
    command = plan(
        "debian:bookworm", packages=["curl", "git"], variant="minbase",
        platform=Platform.parse("linux/arm/v7"),
    )  # fmt: skip
    assert command[0] == "mmdebstrap"
    assert "--architectures=armhf" in command
    assert "--include=curl,git" in command
    assert command[-2:] == ("bookworm", "-")


@pytest.mark.parametrize(
    ("name", "packages", "variant"),
    [
        ("alpine:3", [], "minbase"),
        ("debian", [], "minbase"),
        ("debian:bookworm", ["--hook=rm"], "minbase"),
        ("debian:bookworm", ["a,b"], "minbase"),
        ("debian:bookworm", [], "--x"),
    ],
)
def test_bootstrap_refusals(name: str, packages: list[str], variant: str) -> None:
    with pytest.raises(InvalidParameter):
        plan(name, packages=packages, variant=variant, platform=Platform.parse("linux/amd64"))


def test_empty_layer_digest_is_dockers() -> None:
    from sampan.image.create import EMPTY_DIFF_ID

    assert EMPTY_DIFF_ID.hex == hashlib.sha256(bytes(1024)).hexdigest()
    assert EMPTY_DIFF_ID.short == "5f70bf18a086"
