"""MergeOp and DiffOp: layers put upon others, and what one root has over another (blocking)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sampan.build.cache import Layer
from sampan.build.keys import graph_key
from sampan.build.workspace import Workspace
from sampan.buildkit.llb.values import EMPTY, Root, together
from sampan.image import chain_ids
from sampan.layer.diff import diff_trees


def stacked(workspace: Workspace, roots: Sequence[Root]) -> Root:
    """The layers of all roots, one upon the other; whiteouts act on what lies below by then."""
    filled = [root for root in roots if root.layers]
    if len(filled) < 2:
        return filled[0] if filled else EMPTY
    layers = list(filled[0].layers)
    for root in filled[1:]:
        for layer in root.layers:
            layers.append(_on(workspace, layer, layers[-1]))
    return Root(
        key=graph_key("merge", *(root.key for root in filled)),
        layers=tuple(layers),
        records=together(filled),
        inherited=filled[0].inherited,
    )


def difference(
    workspace: Workspace,
    lower: Root,
    upper: Root,
    keep: Callable[[str, Root, Layer], Root],
) -> Root:
    """What has to be put on ``lower`` to have ``upper``; ``keep`` records a layer made for it.

    Layers that ``upper`` has on top of ``lower`` are that as they are.
    """
    key = graph_key("diff", lower.key, upper.key)
    count = len(lower.layers)
    ids = [layer.diff_id for layer in upper.layers]
    if ids[:count] == [layer.diff_id for layer in lower.layers]:
        layers: list[Layer] = []
        for layer in upper.layers[count:]:
            layers.append(_on(workspace, layer, layers[-1] if layers else None))
        if not layers:
            return EMPTY
        return Root(key=key, layers=tuple(layers), records=together((upper,)))
    with workspace.look(lower.chain) as below, workspace.look(upper.chain) as above:
        layer = workspace.store(diff_trees(below, above))
    return keep(key, EMPTY, layer)


def _on(workspace: Workspace, layer: Layer, below: Layer | None) -> Layer:
    """A layer on top of another than it was made on, its snapshot there."""
    chain = layer.diff_id if below is None else chain_ids([below.chain_id, layer.diff_id])[-1]
    moved = Layer(diff_id=layer.diff_id, descriptor=layer.descriptor, chain_id=chain)
    workspace.take_in(iter(()), moved, below.chain_id if below else None)
    return moved
