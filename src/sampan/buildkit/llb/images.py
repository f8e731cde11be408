"""Images of roots: what a client says of one becomes its configuration (blocking).

What the client leaves out is filled in as BuildKit's image exporter does: the layers, a history
entry for each that has none, times.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from sampan.build.cache import Layer, Record
from sampan.build.finish import moment, stored
from sampan.build.steps import DEFAULT_PATH
from sampan.buildkit.llb.values import Root
from sampan.content import ContentStore
from sampan.errors import InvalidParameter
from sampan.image import Image
from sampan.image.document import ConfigDocument, History, decode
from sampan.model.digest import Digest
from sampan.model.platform import Platform
from sampan.wire.container import ImageConfig

_COMMENT = "buildkit.exporter.image.v0"


def image_of(
    content: ContentStore, root: Root, config: bytes, platform: Platform, epoch: int | None
) -> Image:
    """The image of a root, stored. ``config`` is what the client says of it, b"" when nothing.

    Raises InvalidParameter for a configuration that is none.
    """
    document = _document(config, platform)
    history = _history(list(document.history or ()), root, epoch)
    created = document.created
    if epoch is not None:
        created = moment(epoch)
    elif created is None and history:
        created = history[-1].created
    document = msgspec.structs.replace(document, history=history, created=created)
    return stored(content, document, root.layers)


def _document(config: bytes, platform: Platform) -> ConfigDocument:
    if not config:
        return ConfigDocument(
            architecture=platform.architecture,
            os=platform.os,
            variant=platform.variant or None,
            config=ImageConfig(env=[f"PATH={DEFAULT_PATH}"], working_dir="/"),
        )
    document = decode(config, ConfigDocument, "image configuration")
    for name in ("os", "architecture"):
        if not getattr(document, name):
            raise InvalidParameter(f"invalid image config for export: missing {name}")
    return document


def _history(history: list[History], root: Root, epoch: int | None) -> list[History]:
    """An entry for each layer; more entries than layers are marked as having none."""
    layers: Sequence[Layer] = root.layers
    made = {one.layer.diff_id: one for one in root.records if one.layer is not None}
    found: list[History] = []
    at = 0
    for entry in history:
        if not entry.empty_layer:
            if at >= len(layers):
                entry = msgspec.structs.replace(entry, empty_layer=True)
            elif entry.created is None:
                entry = msgspec.structs.replace(entry, created=_created(layers[at], made, epoch))
            at += 1
        elif entry.created is None and epoch is not None:
            entry = msgspec.structs.replace(entry, created=moment(epoch))
        found.append(entry)
    for layer in layers[at:]:
        record = made.get(layer.diff_id)
        found.append(
            History(
                created=_created(layer, made, epoch),
                created_by=record.description if record else None,
                comment=_COMMENT,
            )
        )
    return found


def _created(layer: Layer, made: Mapping[Digest, Record], epoch: int | None) -> str | None:
    record = made.get(layer.diff_id)
    if epoch is not None:
        return moment(epoch)
    return moment(record.created) if record else None
