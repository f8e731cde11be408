"""Caches taken in from elsewhere: asked for a step's key after our own cache has not got it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from sampan.build.cache import Layer, Record
from sampan.build.cachefile import Step
from sampan.build.workspace import Workspace
from sampan.errors import SampanError
from sampan.image import chain_ids
from sampan.model.descriptor import Descriptor
from sampan.model.digest import Digest

log = logging.getLogger("sampan.build")


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """One imported cache: its steps by key, and how a blob is fetched (blocking)."""

    name: str
    steps: Mapping[str, Step]
    fetch: Callable[[Descriptor], Iterator[bytes]]
    definitions: Mapping[str, str] = field(init=False)

    def __post_init__(self) -> None:
        """Keys by what the steps were made of."""
        found = {one.definition: one.key for one in self.steps.values() if one.definition}
        object.__setattr__(self, "definitions", found)


def find(
    imports: Sequence[Imported], key: str, below: Digest | None, workspace: Workspace
) -> Record | None:
    """The step of ``key`` from the first cache that has it, its layer made on ``below``.

    A cache that fails counts as one that has not got it: the step is done instead. Blocking.
    """
    for one in imports:
        step = one.steps.get(key)
        if step is None:
            continue
        try:
            return _taken(one, step, below, workspace)
        except SampanError as error:
            log.warning("cache %s: %s", one.name, error.message)
    return None


def defined(imports: Sequence[Imported], definition: str) -> str | None:
    """The key of the step made of ``definition`` that a cache has."""
    found = (one.definitions.get(definition) for one in imports)
    return next((key for key in found if key is not None), None)


def _taken(one: Imported, step: Step, below: Digest | None, workspace: Workspace) -> Record:
    layer = None
    if step.layer is not None:
        blob, diff_id = step.layer
        chain = chain_ids([below, diff_id])[-1] if below is not None else diff_id
        layer = Layer(diff_id=diff_id, descriptor=blob, chain_id=chain)
        workspace.take_in(one.fetch(blob), layer, below)
    return Record(
        key=step.key,
        parent=step.parent,
        kind="regular",
        description=step.description,
        layer=layer,
        size=layer.descriptor.size if layer else 0,
        created=step.created,
    )
