"""An image's history joined with its layers' sizes."""

from __future__ import annotations

from dataclasses import dataclass

from sampan.image.image import Image
from sampan.model.descriptor import Descriptor
from sampan.model.digest import Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step in the making of an image; ``layer`` None for one that changed no files."""

    created: str
    created_by: str
    comment: str
    author: str
    layer: Descriptor | None
    diff_id: Digest | None
    chain_id: Digest | None


def steps(image: Image) -> tuple[Step, ...]:
    """The steps, oldest first; layers beyond the recorded history get steps of their own."""
    chain, diff_ids, layers = image.chain_ids, image.config.diff_ids, image.manifest.layers
    result: list[Step] = []
    position = 0
    for entry in image.config.history:
        has_layer = not entry.empty_layer and position < len(layers)
        result.append(
            Step(
                created=entry.created or "",
                created_by=entry.created_by or "",
                comment=entry.comment or "",
                author=entry.author or "",
                layer=layers[position] if has_layer else None,
                diff_id=diff_ids[position] if has_layer else None,
                chain_id=chain[position] if has_layer else None,
            )
        )
        position += has_layer
    result.extend(
        Step(
            created=image.config.created,
            created_by="",
            comment="",
            author="",
            layer=layers[index],
            diff_id=diff_ids[index],
            chain_id=chain[index],
        )
        for index in range(position, len(layers))
    )
    return tuple(result)
