"""Image configurations: views that keep the bytes whose digest is the image's id.

OCI image spec config.md; Docker's additions (Healthcheck, OnBuild, Shell) per docker-image/spec.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from sampan.errors import InvalidParameter
from sampan.image import document
from sampan.image.document import ConfigDocument, History, RootFS
from sampan.model.digest import Digest
from sampan.model.platform import Platform
from sampan.wire.container import ImageConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """An image's configuration: defaults for its containers, layers, history."""

    raw: bytes = field(repr=False)
    document: ConfigDocument
    diff_ids: tuple[Digest, ...]

    @property
    def digest(self) -> Digest:
        """The digest of the bytes: the image id."""
        return Digest.of(self.raw)

    @property
    def platform(self) -> Platform:
        """What the image runs on."""
        return Platform(
            os=self.document.os or "linux",
            architecture=self.document.architecture,
            variant=self.document.variant or "",
            os_version=self.document.os_version or "",
            os_features=tuple(self.document.os_features or ()),
        )

    @property
    def defaults(self) -> ImageConfig:
        """What a container of the image gets unless told otherwise."""
        return self.document.config or ImageConfig()

    @property
    def history(self) -> tuple[History, ...]:
        """How the layers came about, oldest first."""
        return tuple(self.document.history or ())

    @property
    def created(self) -> str:
        """RFC 3339 time of creation, or "" when unknown."""
        return self.document.created or ""


def parse(raw: bytes) -> Config:
    """The configuration in ``raw``; raises InvalidParameter."""
    parsed = document.decode(raw, ConfigDocument, "image configuration")
    if parsed.rootfs is None:
        raise InvalidParameter("malformed image configuration: it has no rootfs")
    if parsed.rootfs.type not in ("layers", ""):  # some tools leave it out
        raise InvalidParameter(
            f"malformed image configuration: rootfs type {parsed.rootfs.type[:40]!r}"
        )
    diff_ids = tuple(Digest.parse(text) for text in parsed.rootfs.diff_ids or ())
    return Config(raw=raw, document=parsed, diff_ids=diff_ids)


def make(parsed: ConfigDocument, diff_ids: Sequence[Digest]) -> Config:
    """A new configuration with these layers."""
    complete = ConfigDocument(
        **{
            name: getattr(parsed, name)
            for name in ConfigDocument.__struct_fields__
            if name != "rootfs"
        },
        rootfs=RootFS(diff_ids=[str(diff_id) for diff_id in diff_ids]),
    )
    return Config(raw=document.encode(complete), document=complete, diff_ids=tuple(diff_ids))


def chain_ids(diff_ids: Sequence[Digest]) -> tuple[Digest, ...]:
    """The chain id of each layer with everything below it (config.md "Layer ChainID")."""
    chain: list[Digest] = []
    for diff_id in diff_ids:
        if chain:
            text = f"{chain[-1]} {diff_id}".encode()
            chain.append(Digest("sha256", hashlib.sha256(text).hexdigest()))
        else:
            chain.append(diff_id)
    return tuple(chain)


def rfc3339(moment: datetime) -> str:
    """``moment`` as image documents write it, in UTC with nine fractional digits."""
    text = moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")
    return f"{text}000Z"
