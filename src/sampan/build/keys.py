"""Cache keys: what a step's result depends on, and nothing else (pure)."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping

from sampan.build.steps import CopyStep, MakeDirectoryStep, RunStep
from sampan.dockerfile.run_mount import RunMount

#: Part of every key; changed when a step comes to mean something else.
GENERATION = "2"


def base_key(chain: str, platform: str) -> str:
    """The key of an image's root."""
    return _hash("base", chain, platform)


def run_key(parent: str, step: RunStep, mounts: dict[str, str], network: str, epoch: str) -> str:
    """The key of a RUN step.

    ``mounts`` are content keys by target for what is bound from other trees. Proxies are left out
    (reference.md, "Predefined ARGs"), secrets count by id alone.
    """
    visible = dataclasses.asdict(dataclasses.replace(step, hidden_environment=()))
    return _hash(
        "run", parent, json.dumps(visible, sort_keys=True), _sorted(mounts), network, epoch
    )


def copy_key(parent: str, step: CopyStep, content: str, epoch: str) -> str:
    """The key of a COPY or ADD by the content it brings; ``--link`` does not depend on parents."""
    return _hash("copy", "" if step.link else parent, step.destination, content, epoch)


def directory_key(parent: str, step: MakeDirectoryStep, epoch: str) -> str:
    """The key of a WORKDIR that makes its directory."""
    return _hash("directory", parent, step.path, epoch)


def setting_key(parent: str, config: Mapping[str, object], text: str) -> str:
    """The key of a step that changes the configuration alone, to ``config``."""
    return _hash("setting", parent, _sorted(config), text)


def definition_key(
    below: str, kind: str, written: str, contents: Mapping[str, str], around: str, epoch: str
) -> str:
    """What a step is made of: the definition below it, itself, and what its sources stand for."""
    return _hash("definition", below, kind, written, _sorted(contents), around, epoch)


def graph_key(kind: str, *parts: str) -> str:
    """The key of a vertex of a client's graph: its operation, and what its inputs hold."""
    return _hash(f"graph-{kind}", *parts)


def mount_label(mount: RunMount) -> str:
    """How a mount is named within a step's key."""
    return f"{mount.type}:{mount.target}"


def _sorted(mapping: Mapping[str, object]) -> str:
    return json.dumps(mapping, sort_keys=True)


def _hash(*parts: str) -> str:
    total = hashlib.sha256(GENERATION.encode())
    for part in parts:
        data = part.encode(errors="surrogateescape")
        total.update(b"%d:" % len(data) + data)
    return total.hexdigest()
