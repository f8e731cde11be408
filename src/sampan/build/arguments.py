"""What ``engine.build`` takes and answers, of an embedded engine and of a daemon alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from sampan.build.executor import Limits
from sampan.build.outputs import Output
from sampan.wire.base import Json
from sampan.wire.options import RegistryAuth

#: Told the name of each step as it starts, and what programs print.
News = Callable[[str, bytes], None]


class BuildArguments(TypedDict, total=False):
    """Options of ``build``; names and meanings are those of ``docker buildx build``.

    ``context`` is the directory of a recipe or text; ``text`` is a Dockerfile's; ``outputs`` are
    as ``--output`` takes them; ``secrets`` are values by id; ``ssh`` sockets of agents by id;
    ``cache_from`` and ``cache_to`` are as their flags; ``news`` is told what goes on.
    """

    context: Path | str
    text: str
    file: str
    tags: Sequence[str]
    target: str
    platforms: Sequence[str]
    arguments: Mapping[str, str]
    labels: Mapping[str, str]
    contexts: Mapping[str, Path | str]
    secrets: Mapping[str, bytes]
    ssh: Mapping[str, str]
    no_cache: bool
    no_cache_filter: Sequence[str]
    pull: bool
    network: str
    extra_hosts: Sequence[str]
    allow: Sequence[str]
    limits: Limits
    outputs: Sequence[str | Output]
    provenance: str
    sbom: bool
    cache_from: Sequence[Mapping[str, str]]
    cache_to: Sequence[Mapping[str, str]]
    auth: Mapping[str, RegistryAuth]
    news: News


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltImage:
    """What was built: the image's id (an index's digest for several platforms), and what
    ``--metadata-file`` would say."""

    id: str
    metadata: Mapping[str, Json]
