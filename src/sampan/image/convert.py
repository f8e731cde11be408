"""Convert images: the same configuration (so the same id), layers compressed for transfer."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from sampan.content import ContentStore
from sampan.errors import DigestMismatch
from sampan.image.create import store_layer
from sampan.image.image import Image
from sampan.image.manifest import make_manifest
from sampan.layer.compression import Compression
from sampan.model.descriptor import DOCKER_LAYER, DOCKER_MANIFEST, OCI_LAYER, Descriptor
from sampan.model.digest import Digest

_PIECE = 1 << 20
_PLAIN = (OCI_LAYER, DOCKER_LAYER)


def compress_layers(
    image: Image,
    content: ContentStore,
    *,
    compression: Compression = Compression.GZIP,
    level: int | None = None,
) -> Image:
    """``image`` with its uncompressed layers (of ``docker load``) compressed, as pushed images are.

    The id stays, the manifest is a new one; an image without such layers is returned as it is.
    Deterministic: doing it again gives the same digests. Blocking. Raises NotFound, NoSpace,
    DigestMismatch when stored content decayed.
    """
    if not any(layer.media_type in _PLAIN for layer in image.manifest.layers):
        return image
    docker = image.manifest.media_type == DOCKER_MANIFEST

    def convert(layer: Descriptor, diff_id: Digest) -> Descriptor:
        if layer.media_type not in _PLAIN:
            return layer
        stored = store_layer(
            _chunks(content, layer.digest),
            content,
            compression=compression,
            level=level,
            docker=docker,
        )
        if stored.diff_id != diff_id:
            raise DigestMismatch(f"stored layer {layer.digest} has digest {stored.diff_id}")
        return stored.descriptor

    # Compressing and hashing release the interpreter's lock.
    with ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="sampan-compress") as pool:
        layers = list(pool.map(convert, image.manifest.layers, image.config.diff_ids))
    manifest = make_manifest(
        image.manifest.config, layers, annotations=image.manifest.annotations, docker=docker
    )
    content.add(manifest.raw)
    return Image(target=manifest.descriptor, manifest=manifest, config=image.config)


def _chunks(content: ContentStore, digest: Digest) -> Iterator[bytes]:
    with content.open(digest) as blob:
        while chunk := blob.read(_PIECE):
            yield chunk
