"""Images in OCI layouts of the client's, as bases and sources of files (``oci-layout://``).

The client offers the layout's blobs as a store of its session and looks the digest up itself; only
what is not here already is fetched. The image has no name here and lasts as long as the build.
"""

from __future__ import annotations

from dataclasses import dataclass

from sampan.buildkit.clientstore import SessionStore
from sampan.buildkit.sessions import Session
from sampan.engine.cachestores import document
from sampan.engine.core import Core
from sampan.engine.imageflows import consume
from sampan.errors import InvalidParameter
from sampan.image import Image, open_image
from sampan.image import manifest as manifests
from sampan.image.manifest import Manifest
from sampan.layer.model import Readable
from sampan.model.descriptor import Descriptor
from sampan.model.digest import Digest
from sampan.model.platform import Platform

#: How the solver names such an image: this, the store's name, ``@`` and the digest.
LAYOUT = "sampan-layout/"
_DEEPEST = 4
_PIECE = 1 << 20


def layout_reference(name: str, address: str) -> str:
    """The reference that stands for ``//STORE[:TAG]@DIGEST``. Raises InvalidParameter."""
    place, _, digest = address.removeprefix("//").partition("@")
    store = place.partition(":")[0]
    if not store or not digest:
        raise InvalidParameter(f"named context {name}: oci-layout requires a digest")
    return f"{LAYOUT}{store}@{Digest.parse(digest)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layouts:
    """The layouts one client offers; images of them are unpacked on one engine."""

    core: Core
    session: Session

    async def image(self, reference: str, platform: Platform) -> Image:
        """The image of a :func:`layout_reference`, fetched and unpacked."""
        name, _, text = reference.removeprefix(LAYOUT).partition("@")
        store = SessionStore(self.session, name, kind="oci")
        core, digest = self.core, Digest.parse(text)
        for _ in range(_DEEPEST):
            raw = await document(store, digest)
            await core.threads.run(core.content.add, raw)
            parsed = manifests.parse(raw)
            if isinstance(parsed, Manifest):
                break
            digest = parsed.select(platform).digest
        else:
            raise InvalidParameter(f"malformed image index {text}: indexes nest too deeply")
        for blob in parsed.blobs:
            await self._fetch(store, blob)
        image = await core.threads.run(open_image, core.content, parsed.descriptor, platform)
        await core.threads.run_long(core.unpacker.unpack, image)
        return image

    async def _fetch(self, store: SessionStore, blob: Descriptor) -> None:
        content = self.core.content
        if await self.core.threads.run(content.exists, blob.digest):
            return

        def ingest(stream: Readable) -> None:
            with content.writer(expected=blob.digest) as writer:
                while piece := stream.read(_PIECE):
                    writer.write(piece)
                writer.commit(blob.digest)

        await consume(self.core, store.read(blob), ingest)
