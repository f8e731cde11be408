"""Reading an OCI image layout (OCI image spec, image-layout.md) out of a spooled archive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sampan.content import ContentStore
from sampan.errors import ArchiveRefused, DigestMismatch, InvalidParameter, NotFound
from sampan.image import config as configuration
from sampan.image import manifest as manifests
from sampan.image.bundle import Bundle, Found
from sampan.image.document import Document, decode
from sampan.image.manifest import Index, Manifest
from sampan.image.spool import File, Spool
from sampan.model import attachment
from sampan.model.descriptor import DOCKER_CONFIG, OCI_CONFIG, OCI_INDEX, Descriptor
from sampan.model.digest import Digest
from sampan.model.platform import Platform
from sampan.model.reference import Reference

#: The whole name, as containerd and Docker write it; then OCI's, often a mere tag.
_NAME = "io.containerd.image.name"
_REF_NAME = "org.opencontainers.image.ref.name"
_MAX_DEPTH = 4


class _Layout(Document, kw_only=True, frozen=True, rename="camel"):
    image_layout_version: str = ""


class _Missing(Exception):
    """Content that is neither in the archive nor in the store."""

    def __init__(self, digest: Digest) -> None:
        super().__init__(f"the archive lacks content {digest}")


def read(
    spool: Spool,
    content: ContentStore,
    names: Mapping[str, tuple[Reference, ...]],
    platforms: Sequence[Platform] = (),
) -> Bundle:
    """The images of the layout; ``names`` are further ones by configuration digest.

    An index may list platforms the archive does not bring (``docker save --platform``); a
    manifest named directly must be complete. Of what an index lists only ``platforms`` are taken,
    if any are given. Raises ArchiveRefused, DigestMismatch, NotFound (nothing for ``platforms``).
    """
    version = decode(spool.document("oci-layout"), _Layout, "oci-layout").image_layout_version
    if version.partition(".")[0] != "1":
        raise ArchiveRefused(f"unsupported OCI image layout version {version[:40]!r}")
    index = manifests.parse(spool.document("index.json"), OCI_INDEX)
    if not isinstance(index, Index):
        raise ArchiveRefused("malformed OCI layout: index.json is no image index")
    reader = _Reader(spool, content, platforms)
    for entry in index.manifests:
        attached = attachment.subject(entry.annotations)
        try:
            if attached is not None:
                reader.take_attached(entry)
                reader.bundle.referrers.append((attached, entry))
                continue
            configs = reader.take(entry, 0)
        except _Missing as error:
            raise ArchiveRefused(str(error)) from error
        about = reader.subjects.get(entry.digest)
        if about is not None and not _entry_names(entry):
            reader.bundle.referrers.append((about, entry))
            continue
        if not configs:
            continue  # an artifact, or an index of nothing that is here
        found = dict.fromkeys(_entry_names(entry))
        for digest in configs:
            found.update(dict.fromkeys(names.get(str(digest), ())))
        target = Descriptor(media_type=entry.media_type, digest=entry.digest, size=entry.size)
        reader.bundle.add(Found(target=target, names=tuple(found)))
    if platforms and not reader.bundle.found:
        wanted = ", ".join(map(str, platforms))
        raise NotFound(f"the archive has no image for {wanted}")
    return reader.bundle


def _entry_names(entry: Descriptor) -> tuple[Reference, ...]:
    for key in (_NAME, _REF_NAME):
        text = entry.annotations.get(key, "")
        if not text or (key == _REF_NAME and "/" not in text and ":" not in text):
            continue  # a bare tag names no repository
        try:
            return (Reference.parse(text).with_default_tag(),)
        except InvalidParameter:
            if key == _NAME:
                raise
    return ()


class _Reader:
    """Follows descriptors, collecting what is complete."""

    def __init__(self, spool: Spool, content: ContentStore, platforms: Sequence[Platform]) -> None:
        self._platforms = platforms
        self._spool = spool
        self._content = content
        self._files = spool.by_digest()
        self.bundle = Bundle()
        #: what manifests say they are about
        self.subjects: dict[Digest, Digest] = {}

    def take(self, entry: Descriptor, depth: int) -> tuple[Digest, ...]:
        """Collect ``entry`` and what it needs; the configurations of its images.

        Raises _Missing before anything of ``entry`` itself was collected.
        """
        if depth > _MAX_DEPTH:
            raise ArchiveRefused("malformed OCI layout: indexes nest too deeply")
        raw, file = self._document(entry)
        parsed = manifests.parse(raw, entry.media_type)
        if parsed.subject is not None:
            self.subjects[entry.digest] = parsed.subject.digest
        if isinstance(parsed, Manifest):
            configs = self._manifest(parsed)
        else:
            configs = self._index(parsed, depth)
        if file is not None:
            self.bundle.files.append(file)
        return configs

    def take_attached(self, entry: Descriptor) -> None:
        """Collect a manifest whose blobs are signatures and the like, whatever it calls them."""
        raw, file = self._document(entry)
        parsed = manifests.parse(raw, entry.media_type)
        if not isinstance(parsed, Manifest):
            raise ArchiveRefused(f"what is attached as {entry.digest} in the archive is an index")
        files = (self._blob(blob) for blob in parsed.blobs)
        self.bundle.files.extend(item for item in (*files, file) if item is not None)

    def _index(self, index: Index, depth: int) -> tuple[Digest, ...]:
        configs: list[Digest] = []
        for entry in index.manifests:
            own = entry.platform
            if self._platforms and not (own and any(w.selects(own) for w in self._platforms)):
                continue
            try:
                configs.extend(self.take(entry, depth + 1))
            except _Missing:
                continue
        return tuple(configs)

    def _manifest(self, manifest: Manifest) -> tuple[Digest, ...]:
        files = [file for blob in manifest.blobs if (file := self._blob(blob)) is not None]
        is_image = manifest.config.media_type in (OCI_CONFIG, DOCKER_CONFIG)
        if is_image:
            self._verify_layers(manifest)
        self.bundle.files.extend(files)
        return (manifest.config.digest,) if is_image else ()

    def _verify_layers(self, manifest: Manifest) -> None:
        raw, _ = self._document(manifest.config)
        diff_ids = configuration.parse(raw).diff_ids
        if len(diff_ids) != len(manifest.layers):
            # Attestations use an image's configuration for layers that are none.
            if all("in-toto" in layer.media_type for layer in manifest.layers):
                return
            raise ArchiveRefused(
                f"the archive's image {manifest.config.digest} has {len(manifest.layers)} layers, "
                f"but {len(diff_ids)} diff ids"
            )
        for layer, diff_id in zip(manifest.layers, diff_ids, strict=True):
            file = self._files.get(layer.digest)
            if file is not None and "in-toto" not in layer.media_type:
                self.bundle.verify(self._spool.layer(file), diff_id)

    def _document(self, entry: Descriptor) -> tuple[bytes, File | None]:
        file = self._blob(entry)
        if file is None:
            return self._content.read(entry.digest), None
        return self._spool.bytes_of(file), file

    def _blob(self, entry: Descriptor) -> File | None:
        """The file of a descriptor; None when the store has it already."""
        file = self._files.get(entry.digest)
        if file is not None:
            if file.size != entry.size:
                raise DigestMismatch(
                    f"content {entry.digest} has {file.size} bytes, not {entry.size}"
                )
            return file
        wrong = self._spool.files.get(f"blobs/{entry.digest.algorithm}/{entry.digest.hex}")
        if wrong is not None:
            raise DigestMismatch(f"content has digest {wrong.digest}, not {entry.digest}")
        if self._content.exists(entry.digest):
            return None
        raise _Missing(entry.digest)
