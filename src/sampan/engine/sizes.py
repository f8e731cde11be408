"""How much room containers take."""

from __future__ import annotations

from sampan.engine.core import Core
from sampan.engine.table import Container
from sampan.errors import NotFound, SampanError


async def container_sizes(core: Core, container: Container) -> tuple[int, int]:
    """Bytes a container wrote, and bytes of its whole root (its image's layers included)."""
    return await core.threads.run_long(_measure, core, container)


def _measure(core: Core, container: Container) -> tuple[int, int]:
    try:
        written = core.snapshots.usage(container.id).size
    except NotFound:
        return 0, 0
    return written, written + image_size(core, container.record.image_id)


def image_size(core: Core, image_id: str) -> int:
    """Bytes of an image's unpacked layers, 0 when the image is gone."""
    try:
        entry, _ = core.images.find(image_id)
        view = core.images.view(entry)
        return sum(core.snapshots.usage(str(chain)).size for chain in view.chain_ids)
    except SampanError:
        return 0
