"""Archives made by hand for tests: good ones, and ones nobody should trust."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable

REGULAR, LINK, SYMLINK = tarfile.REGTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE
CHARACTER, DIRECTORY = tarfile.CHRTYPE, tarfile.DIRTYPE


def member(
    name: str,
    data: bytes = b"",
    *,
    type: bytes = REGULAR,
    link: str = "",
    mode: int = 0o644,
    device: tuple[int, int] = (0, 0),
    **pax: str,
) -> tuple[tarfile.TarInfo, bytes]:
    """One member for :func:`tar`."""
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname, entry.mode, entry.size = type, link, mode, len(data)
    entry.devmajor, entry.devminor = device
    entry.pax_headers = dict(pax)
    return entry, data


def tar(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    """A tar archive of members."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for entry, data in members:
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def files(contents: dict[str, bytes]) -> bytes:
    """A tar archive of regular files."""
    return tar(*(member(name, data) for name, data in contents.items()))


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def config(layers: Iterable[bytes]) -> bytes:
    """An image configuration for uncompressed layers."""
    return json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in layers]},
        }
    ).encode()


def docker_archive(
    *layers: bytes, tags: Iterable[str] = ("test:1",), plain: Iterable[bytes] | None = None
) -> bytes:
    """A docker-archive; ``plain`` are the uncompressed layers the configuration tells of."""
    document = config(layers if plain is None else plain)
    names = [f"{index}/layer.tar" for index in range(len(layers))]
    manifest = [{"Config": "config.json", "RepoTags": list(tags), "Layers": names}]
    return files(
        {
            "config.json": document,
            **dict(zip(names, layers, strict=True)),
            "manifest.json": json.dumps(manifest).encode(),
        }
    )


def oci_archive(*layers: bytes, spoil: str = "") -> bytes:
    """An OCI layout tar; ``spoil`` is the part whose bytes are changed under its digest."""
    document = config(layers)
    kind = "application/vnd.oci.image."

    def descriptor(media: str, data: bytes) -> dict[str, object]:
        return {"mediaType": kind + media, "digest": digest(data), "size": len(data)}

    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": f"{kind}manifest.v1+json",
            "config": descriptor("config.v1+json", document),
            "layers": [descriptor("layer.v1.tar", layer) for layer in layers],
        }
    ).encode()
    index = {"schemaVersion": 2, "manifests": [descriptor("manifest.v1+json", manifest)]}
    blobs = {"manifest": manifest, "config": document}
    blobs.update({f"layer{number}": layer for number, layer in enumerate(layers)})
    return files(
        {
            "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
            "index.json": json.dumps(index).encode(),
            **{
                f"blobs/sha256/{digest(data)[7:]}": data.swapcase() if name == spoil else data
                for name, data in blobs.items()
            },
        }
    )
