"""Images as the API shows them (pure: views in, wire objects out)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from fnmatch import fnmatchcase

import msgspec

from sampan.engine import clock
from sampan.engine.imagetable import Entry
from sampan.image import Image, steps
from sampan.image.document import wire_descriptor
from sampan.model.digest import Digest
from sampan.model.reference import Reference
from sampan.wire.container import DriverData
from sampan.wire.image import (
    ImageHistoryResponseItem,
    ImageInspect,
    ImageInspectMetadata,
    ImageInspectRootFS,
    ImageManifestSummary,
    ImageSummary,
)

SizeOf = Callable[[Digest], int]


def tags(*entries: Entry) -> list[str]:
    """``repo:tag`` of images' names, as people write them."""
    return [tag for entry in entries for tag in _tags(entry.references)]


def _tags(names: Iterable[Reference]) -> list[str]:
    return [name.familiar for name in names if name.tag and name.digest is None]


def digests(*entries: Entry) -> list[str]:
    """``repo@digest`` for every repository images are known in."""
    return _digests(name for entry in entries for name in entry.references)


def _digests(names: Iterable[Reference]) -> list[str]:
    return sorted({f"{name.familiar_name}@{name.digest}" for name in names if name.digest})


def created(image: Image) -> float:
    """Unix seconds of the image's creation, 0 when it does not say."""
    try:
        return datetime.fromisoformat(_six_digits(image.config.created)).timestamp()
    except ValueError:
        return 0.0


def _six_digits(stamp: str) -> str:
    """RFC 3339 with at most six fractional digits, which is what Python before 3.11 reads."""
    head, dot, tail = stamp.partition(".")
    digits = tail.rstrip("Z").split("+")[0].split("-")[0]
    return f"{head}.{digits[:6]}{tail[len(digits) :]}" if dot else stamp


def inspect(
    entry: Entry, alike: Sequence[Entry], image: Image, size: int, driver: str
) -> ImageInspect:
    """``GET /images/{name}/json``; ``size`` is of the unpacked layers, in bytes.

    ``alike`` are all entries of its id, whose names are told together. The image it was made from
    and the container are told as the image has them.
    """
    document = image.config.document
    return ImageInspect(
        id=str(image.id),
        descriptor=wire_descriptor(entry.target),
        repo_tags=tags(*alike),
        repo_digests=digests(*alike),
        comment=document.comment or "",
        created=image.config.created or clock.ZERO,
        author=document.author or "",
        parent=document.parent,
        docker_version=document.docker_version,
        container=document.container,
        config=image.config.defaults,
        architecture=document.architecture,
        variant=document.variant,
        os=document.os or "linux",
        os_version=document.os_version,
        size=size,
        graph_driver=DriverData(name=driver, data={}),
        root_fs=ImageInspectRootFS(
            type="layers", layers=[str(diff_id) for diff_id in image.config.diff_ids]
        ),
        metadata=ImageInspectMetadata(last_tag_time=clock.rfc3339(entry.created)),
    )


def summary(
    entry: Entry,
    image: Image,
    size: int,
    *,
    parent: str = "",
    containers: int = -1,
    shared: int = -1,
    patterns: Sequence[str] = (),
    manifests: list[ImageManifestSummary] | None = None,
) -> ImageSummary:
    """One entry of ``GET /images/json``, with the names that match ``patterns`` if there are."""
    names = [name for name in entry.references if not patterns or _matches(name, patterns)]
    return ImageSummary(
        id=str(image.id),
        parent_id=parent,
        repo_tags=_tags(names),
        repo_digests=_digests(names),
        created=int(created(image)),
        size=size,
        shared_size=shared,
        labels=image.config.defaults.labels or {},
        containers=containers,
        manifests=manifests,
        descriptor=wire_descriptor(entry.target),
    )


def merged(summaries: Iterable[ImageSummary]) -> list[ImageSummary]:
    """One summary an id, with everything that leads to it: manifests may share a configuration."""
    found: dict[str | None, ImageSummary] = {}
    for item in summaries:
        before = found.get(item.id)
        if before is not None:
            manifests = [*(before.manifests or ()), *(item.manifests or ())]
            item = msgspec.structs.replace(
                before,
                repo_tags=[*(before.repo_tags or ()), *(item.repo_tags or ())],
                repo_digests=[*(before.repo_digests or ()), *(item.repo_digests or ())],
                manifests=manifests if before.manifests is not None else None,
            )
        found[item.id] = item
    return list(found.values())


def history(
    entry: Entry, image: Image, size_of: SizeOf, ancestors: Sequence[Entry] = ()
) -> list[ImageHistoryResponseItem]:
    """The steps of an image's making, newest first; ``size_of`` gives a layer's unpacked size.

    ``ancestors`` are the images here it was made from, nearest first: each was one step earlier.
    """
    found = []
    for step in steps(image):
        stamp = 0
        try:
            stamp = int(datetime.fromisoformat(_six_digits(step.created)).timestamp())
        except ValueError:
            stamp = 0
        found.append(
            ImageHistoryResponseItem(
                id="<missing>",
                created=stamp,
                created_by=step.created_by,
                tags=None,
                size=size_of(step.chain_id) if step.chain_id is not None else 0,
                comment=step.comment,
            )
        )
    found.reverse()
    known = [(str(image.id), entry), *((str(other.id), other) for other in ancestors)]
    for position, (identity, owner) in enumerate(known[: len(found)]):
        found[position] = msgspec.structs.replace(
            found[position], id=identity, tags=tags(owner) or None
        )
    return found


def match_reference(entry: Entry, patterns: Sequence[str]) -> bool:
    """Whether a name of the image matches a pattern (``reference=debian:*``)."""
    return any(_matches(reference, patterns) for reference in entry.references)


def _matches(reference: Reference, patterns: Sequence[str]) -> bool:
    names = (reference.familiar, str(reference), reference.familiar_name, reference.name)
    return any(_glob(name, pattern) for pattern in patterns for name in names)


def _glob(name: str, pattern: str) -> bool:
    """path.Match: ``*`` does not cross a slash."""
    parts, wanted = name.split("/"), pattern.split("/")
    return len(parts) == len(wanted) and all(
        fnmatchcase(part, want) for part, want in zip(parts, wanted, strict=True)
    )


def parse_repository(repo: str, tag: str) -> Reference:
    """The name ``repo:tag`` to give an image; raises InvalidParameter."""
    reference = Reference.parse(f"{repo}:{tag}" if tag else repo)
    return reference.with_default_tag()


def chain_users(images: Iterable[Image]) -> dict[Digest, int]:
    """How many of ``images`` have each chain id."""
    users: dict[Digest, int] = {}
    for image in images:
        for chain_id in image.chain_ids:
            users[chain_id] = users.get(chain_id, 0) + 1
    return users
