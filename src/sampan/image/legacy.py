"""Archives from before Docker 1.10: ``repositories`` and a directory for each layer.

docker-image/v1.md: ``<id>/json`` holds a layer's metadata with its parent's id, ``<id>/layer.tar``
its files. The image's configuration is made from them, as Docker's own migration did.
"""

from __future__ import annotations

import re

from sampan.errors import ArchiveRefused
from sampan.image import config as configuration
from sampan.image.bundle import Bundle, Found, layer_descriptor
from sampan.image.document import ConfigDocument, Document, History, decode
from sampan.image.manifest import make_manifest
from sampan.image.spool import Spool
from sampan.model.descriptor import OCI_CONFIG, Descriptor
from sampan.model.reference import Reference
from sampan.wire.container import ImageConfig

_ID = re.compile(r"[a-f0-9]{64}")
_MAX_LAYERS = 128


class _Command(Document, kw_only=True, frozen=True, rename="pascal"):
    cmd: list[str] | None = None


class _Layer(Document, kw_only=True, frozen=True):
    """``<id>/json``."""

    parent: str | None = None
    created: str | None = None
    author: str | None = None
    comment: str | None = None
    architecture: str | None = None
    os: str | None = None
    docker_version: str | None = None
    config: ImageConfig | None = None
    container_config: _Command | None = None


def read(spool: Spool) -> Bundle:
    """The images ``repositories`` names; raises ArchiveRefused, InvalidParameter."""
    repositories = decode(spool.document("repositories"), dict[str, dict[str, str]], "repositories")
    bundle = Bundle()
    for repository, tags in repositories.items():
        for tag, identifier in tags.items():
            name = Reference.parse(f"{repository}:{tag}")
            bundle.add(_image(spool, bundle, identifier, name))
    return bundle


def _image(spool: Spool, bundle: Bundle, identifier: str, name: Reference) -> Found:
    layers = _chain(spool, identifier)
    files = [spool.find(f"{layer_id}/layer.tar") for layer_id, _ in layers]
    top = layers[-1][1]
    document = ConfigDocument(
        architecture=top.architecture or "amd64",
        os=top.os or "linux",
        created=top.created,
        author=top.author or None,
        docker_version=top.docker_version,
        config=top.config,
        history=[_history(layer) for _, layer in layers],
    )
    config = configuration.make(document, [spool.layer(file) for file in files])
    manifest = make_manifest(
        Descriptor(media_type=OCI_CONFIG, digest=config.digest, size=len(config.raw)),
        [layer_descriptor(file) for file in files],
    )
    bundle.files.extend(files)
    bundle.documents.extend((config.raw, manifest.raw))
    return Found(target=manifest.descriptor, names=(name,))


def _chain(spool: Spool, identifier: str) -> list[tuple[str, _Layer]]:
    """The layers from the bottom up to ``identifier``."""
    chain: list[tuple[str, _Layer]] = []
    cursor: str | None = identifier
    while cursor:
        if not _ID.fullmatch(cursor):
            raise ArchiveRefused(f"the archive has the invalid layer id {cursor[:80]!r}")
        if len(chain) >= _MAX_LAYERS:
            raise ArchiveRefused("the archive's layers have too many parents")
        layer = decode(spool.document(f"{cursor}/json"), _Layer, f"{cursor[:12]}/json")
        chain.append((cursor, layer))
        cursor = layer.parent
    return chain[::-1]


def _history(layer: _Layer) -> History:
    command = (layer.container_config.cmd if layer.container_config else None) or []
    return History(
        created=layer.created,
        author=layer.author or None,
        created_by=" ".join(command) or None,
        comment=layer.comment or None,
    )
