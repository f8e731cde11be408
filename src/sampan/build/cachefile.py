"""Exported caches: BuildKit's cache configuration, carrying the keys of our steps (pure).

Spec: spec/buildkit/cache (``application/vnd.buildkit.cacheconfig.v0``). A record's digest is a
step's key, its input the step before, its layer (at most one) what the step made; a step that
left no change has none. Layers form a forest by parent.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from sampan.build.cache import Layer, Record
from sampan.errors import InvalidParameter
from sampan.image import make_manifest, rfc3339
from sampan.image.manifest import Manifest
from sampan.model.descriptor import Descriptor
from sampan.model.digest import Digest

CONFIG = "application/vnd.buildkit.cacheconfig.v0"
#: More steps than any exported build has.
_MOST = 100_000


class _Annotations(msgspec.Struct, omit_defaults=True, rename={"media_type": "mediaType"}):
    media_type: str = ""
    diff_id: str = msgspec.field(name="diffID", default="")
    size: int = 0
    created_at: str = msgspec.field(name="createdAt", default="")


class _Layer(msgspec.Struct, omit_defaults=True):
    blob: str = ""
    parent: int = -1
    annotations: _Annotations | None = None


class _Result(msgspec.Struct):
    layer: int
    created_at: str = msgspec.field(name="createdAt", default="")


class _Input(msgspec.Struct, omit_defaults=True):
    link: int
    selector: str = ""


class _Record(msgspec.Struct, omit_defaults=True):
    digest: str = ""
    layers: list[_Result] | None = None
    inputs: list[list[_Input]] | None = None
    #: ours: what the step is called, when it was done if it made no layer, what it was made of
    description: str = ""
    created: int = 0
    definition: str = ""


class _Config(msgspec.Struct, omit_defaults=True):
    layers: list[_Layer] | None = None
    records: list[_Record] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of an exported cache; ``layer`` is its blob and diff id, None for no change."""

    key: str
    parent: str
    description: str
    created: int
    layer: tuple[Descriptor, Digest] | None
    definition: str = ""


def encode(records: Sequence[Record], *, blobs: Mapping[Digest, Descriptor] | None = None) -> bytes:
    """The configuration of ``records``, each after the one it stands on.

    ``blobs`` maps diff ids to the blobs that are exported where they differ from the records'.
    """
    layers: list[_Layer] = []
    made: list[_Record] = []
    places: dict[str, int] = {}
    tops: dict[str, int] = {}
    for record in records:
        top = tops.get(record.parent, -1)
        results = None
        created = rfc3339(datetime.fromtimestamp(record.created, UTC))
        if record.layer is not None:
            blob = (blobs or {}).get(record.layer.diff_id, record.layer.descriptor)
            layers.append(_described(record.layer, blob, top, created))
            top = len(layers) - 1
            results = [_Result(layer=top, created_at=created)]
        tops[record.key] = top
        parent = places.get(record.parent)
        places[record.key] = len(made)
        made.append(
            _Record(
                digest=f"sha256:{record.key}",
                layers=results,
                inputs=[[_Input(link=parent)]] if parent is not None else None,
                description=f"{record.parent}\n{record.description}",
                created=record.created,
                definition=record.definition,
            )
        )
    return msgspec.json.encode(_Config(layers=layers, records=made))


def _described(layer: Layer, blob: Descriptor, parent: int, created: str) -> _Layer:
    return _Layer(
        blob=str(blob.digest),
        parent=parent,
        annotations=_Annotations(
            media_type=blob.media_type,
            diff_id=str(layer.diff_id),
            size=blob.size,
            created_at=created,
        ),
    )


def decode(raw: bytes) -> dict[str, Step]:
    """The steps of an exported cache by key; those of other builders are never asked for.

    Raises InvalidParameter for a document that is no cache.
    """
    try:
        parsed = msgspec.json.decode(raw, type=_Config)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidParameter(f"malformed build cache: {error}") from None
    layers, records = parsed.layers or [], parsed.records or []
    if len(records) > _MOST:
        raise InvalidParameter(f"malformed build cache: more than {_MOST} records")
    found: dict[str, Step] = {}
    for record in records:
        key = record.digest.removeprefix("sha256:")
        layer = None
        if record.layers:
            place = record.layers[0].layer
            if not 0 <= place < len(layers):
                raise InvalidParameter("malformed build cache: a record names no layer")
            layer = _layer(layers[place])
            if layer is None:
                continue
        parent, _, description = record.description.partition("\n")
        found[key] = Step(
            key=key,
            parent=parent,
            description=description,
            created=record.created,
            layer=layer,
            definition=record.definition,
        )
    return found


def _layer(one: _Layer) -> tuple[Descriptor, Digest] | None:
    about = one.annotations
    if about is None or not about.diff_id or not one.blob:
        return None
    blob = Descriptor(
        media_type=about.media_type, digest=Digest.parse(one.blob), size=max(0, about.size)
    )
    return blob, Digest.parse(about.diff_id)


def manifest(config: Descriptor, layers: Iterable[Descriptor]) -> Manifest:
    """The manifest an exported cache has in a registry or a directory."""
    return make_manifest(config, list({layer.digest: layer for layer in layers}.values()))


def inline(records: Sequence[Record], layers: Mapping[Digest, Descriptor]) -> str:
    """The cache as an image's configuration carries it; only layers of the image count."""
    fitting = [one for one in records if one.layer is None or one.layer.diff_id in layers]
    return base64.b64encode(encode(fitting, blobs=layers)).decode()


def from_inline(text: str) -> dict[str, Step]:
    """The steps an image's configuration carries. Raises InvalidParameter."""
    try:
        return decode(base64.b64decode(text, validate=True))
    except ValueError:
        raise InvalidParameter("malformed inline build cache") from None
