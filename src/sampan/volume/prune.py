"""Which volumes a prune takes (pure)."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from sampan.volume.model import Volume


def prunable(
    volumes: Iterable[Volume],
    referenced: Collection[str],
    *,
    everything: bool = False,
    labels: Iterable[str] = (),
    without_labels: Iterable[str] = (),
) -> tuple[Volume, ...]:
    """Volumes no container refers to: anonymous ones, or all with ``everything``.

    Never a plugin's, and never one that stands for something else (with options): a prune takes
    what is surely ours alone, as dockerd's.

    ``labels`` and ``without_labels`` are ``key`` or ``key=value``; a volume must have every one of
    the first and none of the second.
    """
    wanted, unwanted = list(labels), list(without_labels)
    return tuple(
        volume
        for volume in volumes
        if volume.name not in referenced
        and volume.driver == "local"
        and not volume.options
        and (everything or volume.anonymous)
        and all(_has(volume, label) for label in wanted)
        and not any(_has(volume, label) for label in unwanted)
    )


def _has(volume: Volume, label: str) -> bool:
    key, equals, value = label.partition("=")
    return key in volume.labels and (not equals or volume.labels[key] == value)
