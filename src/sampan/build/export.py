"""Outputs that are bytes for the client: archives of images and trees of files (blocking).

Every function is a generator of a tar stream; what is wrong is raised before the first chunk.
Spec: reference/build.md section 8; OCI image spec image-layout.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from sampan.build.assemble import Assembled, Result, statements
from sampan.build.outputs import Kind, Output
from sampan.build.rewrite import members
from sampan.build.workspace import Workspace
from sampan.content import ContentStore
from sampan.image import Saved, make_index, manifests_below, save
from sampan.image import manifest as manifests
from sampan.image.manifest import Manifest
from sampan.layer.entry import BLOCK
from sampan.layer.writer import TarWriter
from sampan.model.descriptor import Descriptor
from sampan.model.digest import Digest
from sampan.snapshot.rootfs import export


def archive(content: ContentStore, assembled: Assembled, wanted: Output) -> Iterator[bytes]:
    """The image as an archive: an OCI layout, or one that ``docker load`` reads too."""
    if wanted.kind is Kind.DOCKER:
        saved = [Saved(image=image, names=wanted.names) for image in assembled.images]
        return save(saved, content)
    return _layout(content, assembled, wanted)


def _layout(content: ContentStore, assembled: Assembled, wanted: Output) -> Iterator[bytes]:
    names = [
        {
            **assembled.annotations,
            "io.containerd.image.name": str(name),
            "org.opencontainers.image.ref.name": name.tag or "latest",
        }
        for name in wanted.names
    ]
    blobs = dict(_blobs(content, assembled.target))
    return layout(content, assembled.target, blobs, names or [dict(assembled.annotations)])


def layout(
    content: ContentStore,
    target: Descriptor,
    blobs: Mapping[Digest, int],
    entries: Sequence[Mapping[str, str]],
) -> Iterator[bytes]:
    """A tar of an OCI layout with ``blobs`` (digests and sizes); its index names ``target`` once
    for each of ``entries``, the annotations it has there."""
    named = [replace(target, platform=None, annotations=one) for one in entries]
    writer = TarWriter()
    yield from writer.directory(b"blobs/")
    yield from writer.directory(b"blobs/sha256/")
    for digest in sorted(blobs, key=str):
        with content.open(digest) as blob:
            name = f"blobs/{digest.algorithm}/{digest.hex}".encode()
            yield from writer.file(name, blob.fileno(), blobs[digest])
    yield from writer.document(b"index.json", make_index(named).raw)
    yield from writer.document(b"oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
    yield from writer.finish()


def _blobs(content: ContentStore, target: Descriptor) -> Iterator[tuple[Digest, int]]:
    for entry in manifests_below(content, target):
        yield entry.digest, entry.size
        parsed = manifests.parse(content.read(entry.digest), entry.media_type)
        if isinstance(parsed, Manifest):
            yield from ((blob.digest, blob.size) for blob in parsed.blobs)


def files(
    workspace: Workspace, results: Sequence[Result], wanted: Output, epoch: int | None
) -> Iterator[bytes]:
    """The files of the build's roots, and the statements about them beside.

    With several platforms (or ``platform-split``) each has a directory like ``linux_amd64/``.
    """
    split = len(results) > 1 if wanted.platform_split is None else wanted.platform_split
    writer = TarWriter()
    for result in results:
        image = result.built.image
        prefix = f"{str(image.platform).replace('/', '_')}/" if split else ""
        if prefix:
            yield from writer.directory(prefix.encode())
        if image.chain_id is not None:
            yield from writer.flush()
            with workspace.look(image.chain_id) as root:
                yield from members(export(root), epoch=epoch, prefix=prefix.encode())
        for name, _, raw in statements(result, image, wanted):
            path = f"{prefix}{wanted.attestation_prefix}{name}"
            yield from writer.document(path.encode(), raw)
    yield from writer.flush()
    yield bytes(2 * BLOCK)
