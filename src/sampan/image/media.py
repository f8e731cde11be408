"""Media types of layers, by compression and by family (OCI or Docker)."""

from __future__ import annotations

from sampan.errors import InvalidParameter
from sampan.layer.compression import Compression
from sampan.model.descriptor import (
    DOCKER_LAYER,
    DOCKER_LAYER_GZIP,
    DOCKER_LAYER_ZSTD,
    OCI_LAYER,
    OCI_LAYER_GZIP,
    OCI_LAYER_ZSTD,
)

_OCI = {
    Compression.NONE: OCI_LAYER,
    Compression.GZIP: OCI_LAYER_GZIP,
    Compression.ZSTD: OCI_LAYER_ZSTD,
}
_DOCKER = {
    Compression.NONE: DOCKER_LAYER,
    Compression.GZIP: DOCKER_LAYER_GZIP,
    Compression.ZSTD: DOCKER_LAYER_ZSTD,
}


def layer_type(compression: Compression, *, docker: bool = False) -> str:
    """The media type of a layer; raises InvalidParameter for a compression no registry takes."""
    try:
        return (_DOCKER if docker else _OCI)[compression]
    except KeyError:
        raise InvalidParameter(f"layers are not compressed with {compression}") from None
