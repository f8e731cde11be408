"""Images: views over content, unpacking, archives, and making new ones."""

from sampan.image.bootstrap import bootstrap
from sampan.image.changes import apply_changes
from sampan.image.config import Config, chain_ids, rfc3339
from sampan.image.convert import compress_layers
from sampan.image.create import Layer, append, assemble_new, commit, import_, store_layer
from sampan.image.history import Step, steps
from sampan.image.image import Image, assemble, manifests_below, open_image
from sampan.image.load import Loaded, load
from sampan.image.manifest import Index, Manifest, make_index, make_manifest
from sampan.image.save import Saved, save
from sampan.image.unpack import LayerProgress, Unpacker
from sampan.image.variants import Variant, variants

__all__ = [
    "Config",
    "Image",
    "Index",
    "Layer",
    "LayerProgress",
    "Loaded",
    "Manifest",
    "Saved",
    "Step",
    "Unpacker",
    "Variant",
    "append",
    "apply_changes",
    "assemble",
    "assemble_new",
    "bootstrap",
    "chain_ids",
    "commit",
    "compress_layers",
    "import_",
    "load",
    "make_index",
    "make_manifest",
    "manifests_below",
    "open_image",
    "rfc3339",
    "save",
    "steps",
    "store_layer",
    "variants",
]
