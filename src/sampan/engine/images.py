"""The images service: names over content, and the flows that fill and empty it.

Progress objects are dictionaries as dockerd streams them: ``status``, ``id``, ``progressDetail``,
``progress``, ``stream``, ``aux``, ``errorDetail``/``error``.
"""

from __future__ import annotations

import builtins
from collections.abc import AsyncIterator

from sampan.engine.options import Filters, ImportOptions, RegistryAuth
from sampan.wire.base import Json
from sampan.wire.image import (
    DistributionInspect,
    ImageDeleteResponseItem,
    ImageHistoryResponseItem,
    ImageInspect,
    ImageSearchItem,
    ImagesPruneReport,
    ImageSummary,
)

Progress = dict[str, Json]


class Images:
    """Images of one engine. ``ref`` is a reference, an id or a unique id prefix."""

    async def list(
        self,
        *,
        all: bool = False,
        filters: Filters | None = None,
        shared_size: bool = False,
        digests: bool = False,
        manifests: bool = False,
    ) -> builtins.list[ImageSummary]:
        """Images, newest first."""
        raise NotImplementedError

    async def inspect(
        self, ref: str, *, manifests: bool = False, platform: str | None = None
    ) -> ImageInspect:
        """Everything known about an image; NotFound ``No such image: ref``."""
        raise NotImplementedError

    async def history(
        self, ref: str, platform: str | None = None
    ) -> builtins.list[ImageHistoryResponseItem]:
        """The image's layers and the instructions that made them, newest first."""
        raise NotImplementedError

    async def tag(self, ref: str, repo: str, tag: str = "") -> None:
        """Give an image another name."""
        raise NotImplementedError

    async def remove(
        self, ref: str, *, force: bool = False, noprune: bool = False
    ) -> builtins.list[ImageDeleteResponseItem]:
        """Untag, and delete when it was the last name; Conflict when containers use it."""
        raise NotImplementedError

    async def prune(self, filters: Filters | None = None) -> ImagesPruneReport:
        """Delete unused images (dangling ones unless ``dangling=false``)."""
        raise NotImplementedError

    async def load(
        self, body: AsyncIterator[bytes], *, quiet: bool = False, platform: str | None = None
    ) -> AsyncIterator[Progress]:
        """Take in a docker-archive or OCI layout tar, compressed or not."""
        raise NotImplementedError

    async def save(
        self, refs: builtins.list[str], platform: str | None = None
    ) -> AsyncIterator[bytes]:
        """A tar with the images (docker-archive and OCI layout in one)."""
        raise NotImplementedError

    async def import_(
        self, body: AsyncIterator[bytes], options: ImportOptions
    ) -> AsyncIterator[Progress]:
        """Make an image of a root file system tar; the last status is the new id."""
        raise NotImplementedError

    async def pull(
        self,
        ref: str,
        *,
        tag: str = "",
        platform: str | None = None,
        auth: RegistryAuth | None = None,
        all_tags: bool = False,
    ) -> AsyncIterator[Progress]:
        """Fetch an image from its registry."""
        raise NotImplementedError

    async def push(
        self,
        ref: str,
        *,
        tag: str = "",
        platform: str | None = None,
        auth: RegistryAuth | None = None,
    ) -> AsyncIterator[Progress]:
        """Send an image to its registry; without ``tag``, all tags of the repository."""
        raise NotImplementedError

    async def search(
        self,
        term: str,
        *,
        limit: int | None = None,
        filters: Filters | None = None,
        auth: RegistryAuth | None = None,
    ) -> builtins.list[ImageSearchItem]:
        """Search the default registry."""
        raise NotImplementedError

    async def distribution(self, ref: str, auth: RegistryAuth | None = None) -> DistributionInspect:
        """Descriptor and platforms of a reference, asked of its registry."""
        raise NotImplementedError
