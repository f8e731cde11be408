"""How much room containers take."""

from __future__ import annotations

from sampan.engine.core import Core
from sampan.engine.table import Container
from sampan.errors import NotFound, SampanError
from sampan.wire.container import OCIDescriptor


async def container_sizes(core: Core, container: Container) -> tuple[int, int]:
    """Bytes a container wrote, and bytes of its whole root (its image's layers included)."""
    return await core.threads.run_long(_measure, core, container)


def _measure(core: Core, container: Container) -> tuple[int, int]:
    try:
        written = core.snapshots.usage(container.id).size
    except NotFound:
        return 0, 0
    return written, written + image_size(core, container.record.image_manifest)


def image_size(core: Core, manifest: OCIDescriptor | None) -> int:
    """Bytes of an image's unpacked layers, 0 when the image is gone."""
    try:
        view = core.images.of(manifest)
        return sum(core.snapshots.usage(str(chain)).size for chain in view.chain_ids)
    except SampanError:
        return 0
