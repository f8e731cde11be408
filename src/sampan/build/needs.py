"""What of its inputs a build can use, told before they are fetched (pure)."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence

from sampan.build.stages import Plan, Stage
from sampan.dockerfile.instructions import Copy, Instruction, Run

_UNCERTAIN = frozenset("$\\")


def instructions(stages: Sequence[Stage]) -> Iterator[Instruction]:
    """Every instruction of the stages."""
    for stage in stages:
        for _, instruction in stage.steps:
            yield instruction


def names(plan: Plan, stages: Sequence[Stage]) -> set[str]:
    """Whatever FROM, COPY --from and mounts name: a named context may stand for any of it."""
    found = {plan.base_of(stage) for stage in stages}
    for instruction in instructions(stages):
        if isinstance(instruction, Copy):
            found.add(instruction.from_)
        elif isinstance(instruction, Run):
            found.update(mount.from_ for mount in instruction.parsed_mounts(str))
    return found - {""}


def context_paths(stages: Sequence[Stage]) -> tuple[str, ...] | None:
    """The paths of the main context that may be used, wildcards included; None for all of it.

    ONBUILD triggers of a base are not known here: who has a base that is no stage wants all.
    """
    found: set[str] = set()
    for instruction in instructions(stages):
        if isinstance(instruction, Run):
            if any(
                mount.type == "bind" and not mount.from_ for mount in instruction.parsed_mounts(str)
            ):
                return None
            continue
        if not isinstance(instruction, Copy) or instruction.from_:
            continue
        for source in instruction.sources:
            if instruction.add and "://" in source:
                continue
            path = posixpath.normpath(posixpath.join("/", source)).lstrip("/")
            if not path or _UNCERTAIN & set(source):
                return None
            found.add(path)
    return tuple(sorted(found))
