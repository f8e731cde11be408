"""What refers to an image (signatures, SBOMs) comes with it, goes with it, and ends with it."""

from __future__ import annotations

import json
import tarfile
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest

from sampan.cli import transports
from sampan.content.store import FileStore
from sampan.engine.engine import Engine
from sampan.model.digest import Digest
from sampan.model.reference import Reference
from sampan.registry import Registry
from sampan.registry.server.config import ServerConfig, Storage
from sampan.registry.server.serve import serving
from tests.engines import World, chunks
from tests.unit.registry import samples

IMAGE = samples.image(1)
SBOM = samples.image(1, subject=IMAGE.descriptor(), artifact_type="x/sbom")
SIGNATURE = samples.image(1, subject=SBOM.descriptor(), artifact_type="x/signature")
#: about another platform's image, which is not pulled
OTHER = samples.image(1, architecture="s390x")
ELSEWHERE = samples.image(1, subject=OTHER.descriptor(), artifact_type="x/sbom")
ROOT = samples.index(
    IMAGE.descriptor(platform={"os": "linux", "architecture": "amd64"}),
    OTHER.descriptor(platform={"os": "linux", "architecture": "s390x"}),
)
SEAL = samples.image(1, subject=ROOT.descriptor(), artifact_type="x/seal")
ABOUT = {SBOM.digest, SIGNATURE.digest, SEAL.digest}


async def referrers(address: str, name: str, subject: Digest) -> set[Digest]:
    where = Reference.parse(f"{address}/{name}")
    async with Registry() as registry, registry.origin(where) as repository:
        return {item.digest for item in await repository.referrers(subject)}


async def pull(engine: Engine, name: str) -> None:
    async for item in await engine.images.pull(name, tag="1"):
        assert "error" not in item, item


async def push(engine: Engine, name: str) -> None:
    async for item in await engine.images.push(name, tag="1"):
        assert "error" not in item, item


async def saved(engine: Engine, name: str) -> bytes:
    return b"".join([piece async for piece in await engine.images.save([name])])


async def load(engine: Engine, archive: bytes) -> None:
    async for item in await engine.images.load(chunks(archive)):
        assert "error" not in item, item


def about(engine: Engine) -> set[Digest]:
    (entry,) = engine.core.images
    for item in entry.referrers:
        assert engine.core.content.exists(item.digest)
    return {item.digest for item in entry.referrers}


async def test_there_and_back(world: World, tmp_path: Path) -> None:
    content = FileStore(tmp_path / "content")
    everything = (IMAGE, OTHER, SBOM, SIGNATURE, ELSEWHERE, ROOT, SEAL)
    for sample in everything:
        sample.store(content)
    storage = Storage(root=str(tmp_path / "registry"))
    async with serving(ServerConfig(listen="127.0.0.1:0", storage=storage)) as (host, port):
        address = f"{host}:{port}"
        async with Registry() as registry:
            for sample in everything[-2:]:
                await registry.push(
                    Reference.parse(f"{address}/app:{'1' if sample is ROOT else 'seal'}"),
                    sample.digest,
                    content=content,
                )
            for sample in (SBOM, SIGNATURE, ELSEWHERE):
                name = Reference.parse(f"{address}/app@{sample.digest}")
                await registry.push(name, sample.digest, content=content)

        async with await world.open() as engine:  # unless it is wanted, it stays where it is
            await pull(engine, f"{address}/app")
            assert about(engine) == set()
        config = replace(world.config, keep_referrers=True)
        async with await Engine.open(config) as engine:
            await pull(engine, f"{address}/app")
            assert about(engine) == ABOUT
            assert not engine.core.content.exists(ELSEWHERE.digest)

        async with await world.open() as engine:  # it is remembered
            assert about(engine) == ABOUT
            await engine.images.tag(f"{address}/app:1", f"{address}/copy", "1")
            await push(engine, f"{address}/copy")
            whole = await saved(engine, f"{address}/app:1")
            await engine.images.remove(f"{address}/copy:1")
            await engine.images.remove(f"{address}/app:1")
            left = list(engine.core.content.walk())
            assert left == []
            # The archive has what is about the one platform that was here, all else is not in it.
            await load(engine, whole)
            assert about(engine) == ABOUT
            layout = transports.Place("oci", str(tmp_path / "layout"), "2")
            transports.write(layout, f"{address}/app:1", [whole])
            transports.write(layout, f"{address}/app:1", [whole])
            await engine.images.remove(f"{address}/app:1")
            await load(engine, b"".join(transports.archive(layout)))
            assert about(engine) == ABOUT
        # Only an image of one platform was here, so that its index, and what is about that, stays.
        assert await referrers(address, "copy", IMAGE.digest) == {SBOM.digest}
        assert await referrers(address, "copy", SBOM.digest) == {SIGNATURE.digest}
        assert await referrers(address, "copy", ROOT.digest) == set()


async def test_what_is_attached_by_a_tag(world: World, tmp_path: Path) -> None:
    """cosign's signatures have no subject: their tags say what they are about, and go along."""
    content = FileStore(tmp_path / "content")
    signature, other = samples.image(1), samples.image(1)
    payload = b'{"critical": {}}'  # no tar: what is attached is no image, whatever it looks like
    document = json.loads(signature.manifest)
    document["layers"] = [
        samples.descriptor("application/vnd.dev.cosign.simplesigning.v1+json", payload)
    ]
    signature = samples.Sample(json.dumps(document).encode(), (signature.blobs[0], payload))
    tag = f"sha256-{IMAGE.digest.hex}.sig"
    for sample in (IMAGE, signature, other):
        sample.store(content)
    storage = Storage(root=str(tmp_path / "registry"))
    async with serving(ServerConfig(listen="127.0.0.1:0", storage=storage)) as (host, port):
        address = f"{host}:{port}"
        async with Registry() as registry:
            for name, sample in (
                ("app:1", IMAGE),
                (f"app:{tag}", signature),
                (f"signed:{tag}", other),
            ):
                await registry.push(
                    Reference.parse(f"{address}/{name}"), sample.digest, content=content
                )

            async def tagged(name: str) -> Digest:
                where = Reference.parse(f"{address}/{name}")
                async with registry.origin(where) as repository:
                    return (await repository.resolve(tag)).digest

            async with await Engine.open(replace(world.config, keep_referrers=True)) as engine:
                await pull(engine, f"{address}/app")
                assert about(engine) == {signature.digest}
            async with await world.open() as engine:  # it is remembered
                for name in ("copy", "signed"):
                    await engine.images.tag(f"{address}/app:1", f"{address}/{name}", "1")
                    await push(engine, f"{address}/{name}")
                assert await tagged("copy") == signature.digest
                assert await tagged("signed") == other.digest  # others' signatures stay
                whole = await saved(engine, f"{address}/app:1")
                for name in ("copy", "signed", "app"):
                    await engine.images.remove(f"{address}/{name}:1")
                assert list(engine.core.content.walk()) == []
                for place in (
                    transports.Place("oci", str(tmp_path / "layout"), "2"),
                    transports.Place("oci-archive", str(tmp_path / "archive"), "2"),
                ):
                    transports.write(place, f"{address}/app:1", [whole])
                    await load(engine, b"".join(transports.archive(place)))
                    assert about(engine) == {signature.digest}
                    (entry,) = engine.core.images
                    await engine.images.remove(str(entry.id))


async def test_lists_that_lie(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What says of itself that it is about something else is not taken along."""
    content = FileStore(tmp_path / "content")
    stranger = samples.image(1, subject=OTHER.descriptor(), artifact_type="x/sbom")
    listed = samples.index(stranger.descriptor(), SBOM.descriptor())
    for sample in (IMAGE, SBOM, stranger):
        sample.store(content)
    listed.store(content)
    storage = Storage(root=str(tmp_path / "registry"))
    async with serving(ServerConfig(listen="127.0.0.1:0", storage=storage)) as (host, port):
        address = f"{host}:{port}"
        async with Registry() as registry:
            for sample in (IMAGE, SBOM, stranger):
                name = Reference.parse(f"{address}/app:{'1' if sample is IMAGE else 'x'}")
                await registry.push(name, sample.digest, content=content)

        from sampan.registry.repository import Repository

        original = Repository.referrers

        async def lying(self: Repository, subject: Digest, artifact_type: str = "") -> object:
            found = await original(self, subject, artifact_type)
            return [*found, *await original(self, OTHER.digest)]

        monkeypatch.setattr(Repository, "referrers", lying)
        async with await Engine.open(replace(world.config, keep_referrers=True)) as engine:
            await pull(engine, f"{address}/app")
            assert about(engine) == {SBOM.digest}


def test_an_archive_names_them_beside_the_image(tmp_path: Path) -> None:
    """A layout with an image and what is about it has one image to choose, not two."""
    directory = tmp_path / "layout"
    archive = BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        index = {
            "schemaVersion": 2,
            "manifests": [
                {
                    **IMAGE.descriptor(),
                    "annotations": {"org.opencontainers.image.ref.name": "1"},
                },
                SBOM.descriptor(artifactType="x/sbom"),
            ],
        }
        documents = {"index.json": transports.json.dumps(index).encode()}
        for sample in (IMAGE, SBOM):
            for blob in (sample.manifest, *sample.blobs):
                documents[f"blobs/sha256/{Digest.of(blob).hex}"] = blob
        for name, data in documents.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, BytesIO(data))
    place = transports.Place("oci", str(directory), "")
    transports.write(place, "x:1", [archive.getvalue()])
    with tarfile.open(fileobj=BytesIO(b"".join(transports.archive(place)))) as tar:
        names = tar.getnames()
    assert f"blobs/sha256/{SBOM.digest.hex}" in names
