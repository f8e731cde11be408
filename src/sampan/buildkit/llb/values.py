"""What vertexes come to: roots made of layers, and directories of the host."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sampan.build.cache import Layer, Record
from sampan.build.keys import graph_key
from sampan.build.selection import Tree
from sampan.build.workspace import Workspace
from sampan.kernel.mount import descriptor
from sampan.model.digest import Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """Layers on top of one another. ``key`` tells what they hold, ``records`` how they came
    about; the first ``inherited`` are an image's, of which nothing is recorded."""

    key: str
    layers: tuple[Layer, ...] = ()
    records: tuple[Record, ...] = ()
    inherited: int = 0

    @property
    def chain(self) -> Digest | None:
        """The chain id of the uppermost layer; None while there is none."""
        return self.layers[-1].chain_id if self.layers else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Directory:
    """A directory of the host that lasts as long as the build.

    ``known`` tells what it holds where that is known without looking: a commit.
    """

    path: Path
    known: str = ""


Value = Root | Directory

#: What an input of -1 stands for.
EMPTY = Root(key=graph_key("empty"))


@contextlib.contextmanager
def tree(value: Value, workspace: Workspace) -> Iterator[Tree]:
    """The files of a value while the block lasts. Blocking."""
    if isinstance(value, Root):
        with workspace.look(value.chain) as root:
            yield Tree(root=root)
        return
    with descriptor(os.open(value.path, os.O_RDONLY | os.O_DIRECTORY)) as root:
        yield Tree(root=root)


def together(values: Iterable[Value]) -> tuple[Record, ...]:
    """The records of several values, each once."""
    found: dict[str, Record] = {}
    for value in values:
        if isinstance(value, Root):
            found |= {record.key: record for record in value.records}
    return tuple(found.values())
