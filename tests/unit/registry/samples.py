"""Small images made of random bytes, for every test of registries."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from dataclasses import dataclass

from sampan.content import ContentStore
from sampan.model.descriptor import OCI_CONFIG, OCI_INDEX, OCI_LAYER_GZIP, OCI_MANIFEST
from sampan.model.digest import Digest


def descriptor(media_type: str, data: bytes, **more: object) -> dict[str, object]:
    """A descriptor of ``data`` as JSON."""
    return {"mediaType": media_type, "digest": str(Digest.of(data)), "size": len(data), **more}


def layer(size: int = 1000) -> tuple[bytes, str]:
    """A gzip layer of one file of random bytes, and its diff id."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        entry = tarfile.TarInfo("file")
        entry.size = size
        tar.addfile(entry, io.BytesIO(os.urandom(size)))
    return gzip.compress(raw.getvalue(), 1), str(Digest.of(raw.getvalue()))


@dataclass(frozen=True, slots=True)
class Sample:
    """An image's manifest and blobs."""

    manifest: bytes
    blobs: tuple[bytes, ...]
    media_type: str = OCI_MANIFEST

    @property
    def digest(self) -> Digest:
        return Digest.of(self.manifest)

    def store(self, content: ContentStore) -> Digest:
        """Put everything into a content store; the manifest's digest."""
        for blob in self.blobs:
            content.add(blob)
        return content.add(self.manifest)

    def descriptor(self, **more: object) -> dict[str, object]:
        return descriptor(self.media_type, self.manifest, **more)


def image(
    layers: int = 2,
    size: int = 1000,
    *,
    subject: dict[str, object] | None = None,
    artifact_type: str = "",
    annotations: dict[str, str] | None = None,
    architecture: str = "amd64",
) -> Sample:
    """An OCI image, or an artifact that has a subject."""
    made = [layer(size) for _ in range(layers)]
    config = json.dumps(
        {
            "architecture": architecture,
            "os": "linux",
            "config": {"Cmd": ["true"]},
            "rootfs": {"type": "layers", "diff_ids": [diff_id for _, diff_id in made]},
            "history": [{"created_by": "RUN <b>thing</b>"} for _ in made],
        }
    ).encode()
    document: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(OCI_CONFIG, config),
        "layers": [descriptor(OCI_LAYER_GZIP, data) for data, _ in made],
    }
    if subject:
        document["subject"] = subject
    if artifact_type:
        document["artifactType"] = artifact_type
    if annotations:
        document["annotations"] = annotations
    blobs = (config, *(data for data, _ in made))
    return Sample(json.dumps(document).encode(), blobs)


def index(*descriptors: dict[str, object]) -> Sample:
    """An OCI index."""
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(descriptors)}
    return Sample(json.dumps(document).encode(), (), OCI_INDEX)
