"""What to build, and what came of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from sampan.build.cache import Layer, Record
from sampan.build.executor import Limits, Secrets
from sampan.build.selection import Tree
from sampan.dockerfile.parser import Dockerfile
from sampan.errors import Unsupported
from sampan.image import Image
from sampan.model.platform import Platform

#: What a build may be allowed besides what every build may.
_ENTITLEMENTS = frozenset(("network.host", "security.insecure"))


def entitlements(names: Iterable[str]) -> frozenset[str]:
    """What a build is allowed. Raises Unsupported naming what no build is."""
    found = frozenset(names)
    for name in sorted(found - _ENTITLEMENTS):
        raise Unsupported(f"entitlement {name!r} is not supported")
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """One build of one platform.

    ``context`` is the main context, ``contexts`` the named ones by name: a tree, or the reference
    of an image that stands in. ``context_path`` is where the context lies on the host, for bind
    mounts of it. ``now`` is in seconds since the epoch and stands for every time the build
    records; ``epoch`` is SOURCE_DATE_EPOCH, and ``clamp`` tells that it bounds files' times as
    well. ``confined`` refuses sources that lead out of the context, which are as inside it
    otherwise. ``no_cache_stages`` names stages whose cache is not used.
    """

    file: Dockerfile
    context: Tree | None
    context_path: str = ""
    contexts: Mapping[str, str | Tree] = field(default_factory=dict)
    target: str = ""
    platform: Platform
    arguments: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    secrets: Secrets = field(default_factory=lambda: Secrets(values={}))
    ssh: Mapping[str, str] = field(default_factory=dict)
    confined: bool = False
    no_cache: bool = False
    no_cache_stages: frozenset[str] = frozenset()
    pull: bool = False
    network: str = "default"
    extra_hosts: tuple[str, ...] = ()
    insecure_allowed: bool = False
    limits: Limits = field(default_factory=Limits)
    now: float
    epoch: int | None = None
    clamp: bool = True

    @property
    def time(self) -> float:
        """The time the image is created at."""
        return self.now if self.epoch is None else self.epoch

    @property
    def latest(self) -> int | None:
        """The latest time files of layers may have; None is any."""
        return self.epoch if self.clamp else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """Something from elsewhere that went into a build, by its address and digest."""

    uri: str
    algorithm: str
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A built image, in the content store and unpacked; ``cached`` tells that no step ran.

    The first ``inherited`` layers are those of a base image. ``materials`` are what came from
    elsewhere, ``hermetic`` tells that no step could reach a network. ``records`` are the steps
    of the target, ``all_records`` those of every stage it needed.
    """

    image: Image
    layers: tuple[Layer, ...]
    cached: bool
    inherited: int = 0
    materials: tuple[Material, ...] = ()
    hermetic: bool = False
    records: tuple[Record, ...] = ()
    all_records: tuple[Record, ...] = ()
