"""Manifests, indexes, configurations and history: views over bytes that are kept."""

from __future__ import annotations

import json

import pytest

from sampan.errors import InvalidParameter, NotFound, Unsupported
from sampan.image import Index, Manifest, assemble, chain_ids, make_index, make_manifest, steps
from sampan.image import config as configuration
from sampan.image import manifest as manifests
from sampan.image.document import History
from sampan.model.descriptor import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_EMPTY,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    Descriptor,
)
from sampan.model.digest import Digest
from sampan.model.platform import Platform

A, B, C = (Digest.of(text) for text in (b"a", b"b", b"c"))


def raw(**fields: object) -> bytes:
    return json.dumps({"schemaVersion": 2, **fields}).encode()


def wire(digest: Digest = A, **fields: object) -> dict[str, object]:
    return {"mediaType": OCI_CONFIG, "digest": str(digest), "size": 1, **fields}


def entry(digest: Digest, architecture: str, variant: str = "", os: str = "linux") -> Descriptor:
    return Descriptor(
        media_type=OCI_MANIFEST,
        digest=digest,
        size=1,
        platform=Platform(os=os, architecture=architecture, variant=variant),
    )


def test_manifest_keeps_its_bytes() -> None:
    data = raw(config=wire(), layers=[wire(B)], annotations={"x": "y"}, unknown=[1]) + b"\n"
    manifest = manifests.parse(data)
    assert isinstance(manifest, Manifest)
    assert manifest.raw == data
    assert manifest.digest == Digest.of(data)
    assert manifest.media_type == OCI_MANIFEST
    assert [blob.digest for blob in manifest.blobs] == [A, B]
    assert manifest.annotations == {"x": "y"}


@pytest.mark.parametrize("kind", [OCI_MANIFEST, DOCKER_MANIFEST])
def test_made_manifest_is_read_back(kind: str) -> None:
    config = Descriptor(media_type=OCI_CONFIG, digest=A, size=3)
    layer = Descriptor(media_type=OCI_LAYER, digest=B, size=4, annotations={"k": "v"})
    made = make_manifest(config, [layer], docker=kind == DOCKER_MANIFEST)
    assert manifests.parse(made.raw, kind) == made


@pytest.mark.parametrize("kind", [OCI_INDEX, DOCKER_LIST])
def test_made_index_is_read_back(kind: str) -> None:
    made = make_index([entry(A, "arm", "v7")], docker=kind == DOCKER_LIST)
    assert manifests.parse(made.raw, kind) == made
    assert isinstance(made, Index)


@pytest.mark.parametrize(
    ("data", "announced"),
    [
        (b"", ""),
        (b"[]", ""),
        (b'{"schemaVersion": 2}', ""),
        (b"\xff", ""),
        (b'{"schemaVersion": 3, "config": {}}', ""),
        (raw(config=wire(), layers=[], manifests=[]), ""),  # CVE-2021-41190
        (raw(config=wire(), layers=[], mediaType=OCI_INDEX), ""),
        (raw(manifests=[], mediaType=OCI_MANIFEST), ""),
        (raw(config=wire(), layers=[], mediaType=OCI_MANIFEST), DOCKER_MANIFEST),
        (raw(config=wire(), layers=[], mediaType="text/html"), ""),
        (raw(config=wire(digest="sha256:12"), layers=[]), ""),
        (raw(config=wire(size=-1), layers=[]), ""),
        (raw(config={"mediaType": "x"}, layers=[]), ""),
        (raw(config=wire(), layers=[wire()] * 2000), ""),
        (raw(manifests=[wire()] * 5000), OCI_INDEX),
    ],
)
def test_malformed_manifests(data: bytes, announced: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        manifests.parse(data, announced)
    assert "\n" not in caught.value.message


def test_schema_one_is_named() -> None:
    with pytest.raises(Unsupported, match="version 1"):
        manifests.parse(b'{"schemaVersion": 1, "fsLayers": []}')


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("linux/amd64", A),
        ("linux/arm64/v8", B),
        ("linux/arm/v7", C),
        ("linux/386", None),
        ("windows/amd64", None),
    ],
)
def test_index_selects(wanted: str, found: Digest | None) -> None:
    other = Digest.of(b"other")
    index = make_index(
        [
            entry(Digest.of(b"attestation"), "unknown", os="unknown"),
            entry(other, "arm", "v6"),
            entry(A, "amd64"),
            entry(B, "arm64"),
            entry(C, "arm", "v7"),
        ]
    )
    if found is None:
        with pytest.raises(NotFound, match="no matching manifest for"):
            index.select(Platform.parse(wanted))
    else:
        assert index.select(Platform.parse(wanted)).digest == found


def test_amd64_takes_386_only_when_it_must() -> None:
    both = make_index([entry(A, "386"), entry(B, "amd64")])
    assert both.select(Platform.parse("linux/amd64")).digest == B
    assert make_index([entry(A, "386")]).select(Platform.parse("linux/amd64")).digest == A


def test_chain_ids() -> None:
    # config.md, "Layer ChainID": ChainID(L0|...|Ln) = Digest(ChainID(L0|...|Ln-1) + " " + DiffID)
    second = Digest.of(f"{A} {B}".encode())
    assert chain_ids([A, B, C]) == (A, second, Digest.of(f"{second} {C}".encode()))
    assert chain_ids([]) == ()


CONFIG = {
    "architecture": "arm64",
    "os": "linux",
    "variant": "v8",
    "created": "2020-01-01T00:00:00Z",
    "config": {"Cmd": None, "Env": ["A=b"], "Labels": {"x": "y"}, "Unknown": 1},
    "rootfs": {"type": "layers", "diff_ids": [str(A), str(B)]},
    "history": [
        {"created_by": "one"},
        {"created_by": "env", "empty_layer": True},
    ],
    "moby.buildkit.buildinfo.v1": "x",
}


def image_of(document: dict[str, object], layers: int, kind: str = OCI_CONFIG) -> object:
    data = json.dumps(document).encode()
    config = Descriptor(media_type=kind, digest=Digest.of(data), size=len(data))
    parts = [Descriptor(media_type=OCI_LAYER, digest=C, size=n) for n in range(layers)]
    manifest = make_manifest(config, parts)
    return assemble(manifest.descriptor, manifest, data)


def test_config_keeps_its_bytes_and_the_image_its_id() -> None:
    data = json.dumps(CONFIG).encode()
    config = configuration.parse(data)
    assert config.raw == data
    assert config.digest == Digest.of(data)
    assert str(config.platform) == "linux/arm64/v8"
    assert config.defaults.env == ["A=b"]
    assert config.defaults.cmd is None


def test_history_is_joined_with_layers() -> None:
    image = image_of(CONFIG, 2)
    found = steps(image)  # type: ignore[arg-type]
    assert [(step.created_by, step.layer and step.layer.size) for step in found] == [
        ("one", 0),
        ("env", None),
        ("", 1),  # a layer nobody recorded
    ]
    assert [step.diff_id for step in found] == [A, None, B]


@pytest.mark.parametrize(
    ("change", "layers", "kind", "what"),
    [
        ({}, 1, OCI_CONFIG, "1 layers, but 2 diff ids"),
        ({}, 2, OCI_EMPTY, "not an image but an artifact"),
        ({"rootfs": None}, 2, OCI_CONFIG, "no rootfs"),
        ({"rootfs": {"type": "tree"}}, 2, OCI_CONFIG, "rootfs type"),
        ({"rootfs": {"type": "layers", "diff_ids": ["x"]}}, 1, OCI_CONFIG, "invalid digest"),
        ({"config": {"Env": "A=b"}}, 2, OCI_CONFIG, "malformed image configuration"),
    ],
)
def test_malformed_images(change: dict[str, object], layers: int, kind: str, what: str) -> None:
    with pytest.raises(InvalidParameter, match=what):
        image_of({**CONFIG, **change}, layers, kind)


def test_made_config_has_all_it_must() -> None:
    document = configuration.ConfigDocument(
        architecture="amd64", os="linux", history=[History(created_by="x", empty_layer=True)]
    )
    made = configuration.make(document, [])
    assert json.loads(made.raw) == {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": []},
        "history": [{"created_by": "x", "empty_layer": True}],
    }
    assert configuration.parse(made.raw) == made
