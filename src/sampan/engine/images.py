"""The images service: names over content, and the flows that fill and empty it.

Progress objects are dictionaries as dockerd streams them: ``status``, ``id``, ``progressDetail``,
``progress``, ``stream``, ``aux``, ``errorDetail``/``error``.
"""

from __future__ import annotations

import builtins
from collections.abc import AsyncIterator, Sequence

import msgspec

from sampan.engine import (
    clock,
    imageflows,
    imagelayers,
    imagemanifests,
    imageparents,
    imageplatforms,
    imageremoval,
    imageviews,
    pushing,
    transfer,
)
from sampan.engine.core import Core
from sampan.engine.creation import find_image
from sampan.engine.filters import boolean, check_filters, match_labels, parse_time, until
from sampan.engine.imageflows import Progress
from sampan.engine.imagetable import Entry, insert_name
from sampan.engine.options import Filters, ImportOptions, RegistryAuth
from sampan.errors import InvalidParameter, NotFound, SampanError
from sampan.image import Image
from sampan.model.digest import Digest
from sampan.model.platform import Platform
from sampan.model.reference import Reference
from sampan.wire.container import FilesystemChange
from sampan.wire.image import (
    DistributionInspect,
    ImageDeleteResponseItem,
    ImageHistoryResponseItem,
    ImageInspect,
    ImageLayer,
    ImageMount,
    ImageSearchItem,
    ImagesPruneReport,
    ImageSummary,
)

_LIST_KEYS = ("before", "dangling", "label", "label!", "reference", "since", "until")


class Images:
    """Images of one engine. ``ref`` is a reference, an id or a unique id prefix."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def list(
        self,
        *,
        all: bool = False,
        filters: Filters | None = None,
        shared_size: bool = False,
        digests: bool = False,
        manifests: bool = False,
    ) -> builtins.list[ImageSummary]:
        """Images, newest first; without ``all``, none that only others were made from."""
        checked = check_filters(filters, _LIST_KEYS)
        core = self._core
        views = await self._views()
        found = self._chosen(views, checked, intermediate=all)
        used = [container.record.image_id for container in core.containers]
        distinct = {image.id: image for _, image in views}
        here = {str(identity) for identity in distinct}

        def parent(image: Image) -> str:
            claimed = image.config.document.parent or ""
            return claimed if claimed in here else ""

        shared = imageviews.chain_users(distinct.values()) if shared_size else {}
        users = imagemanifests.users(core) if manifests else {}

        def build() -> builtins.list[ImageSummary]:
            return imageviews.merged(
                imageviews.summary(
                    entry,
                    image,
                    self._size(image),
                    parent=parent(image),
                    containers=used.count(str(image.id)) if shared_size else -1,
                    shared=sum(
                        self._layer_size(chain)
                        for chain in image.chain_ids
                        if shared.get(chain, 0) > 1
                    )
                    if shared_size
                    else -1,
                    patterns=checked.get("reference", ()),
                    manifests=imagemanifests.summaries(core, entry, users) if manifests else None,
                )
                for entry, image in found
            )

        return await core.threads.run(build)

    def _chosen(
        self,
        views: builtins.list[tuple[Entry, Image]],
        filters: Filters,
        *,
        intermediate: bool,
    ) -> builtins.list[tuple[Entry, Image]]:
        """Those that pass the filters, newest first; ``intermediate``: also what only others were
        made from."""
        found = [pair for pair in views if self._matches(*pair, filters, views)]
        if not intermediate:
            made = imageparents.children(image for _, image in views)
            found = [
                pair for pair in found if not imageparents.intermediate(self._core, pair[0], made)
            ]
        return sorted(found, key=lambda pair: imageviews.created(pair[1]), reverse=True)

    async def _views(self) -> builtins.list[tuple[Entry, Image]]:
        """Every image that can run here, read."""

        def read() -> builtins.list[tuple[Entry, Image]]:
            found = []
            for entry in self._core.images:
                try:
                    found.append((entry, self._core.images.view(entry)))
                except (NotFound, InvalidParameter):
                    continue  # an index without an image for this platform
            return found

        return await self._core.threads.run(read)

    def _matches(
        self,
        entry: Entry,
        image: Image,
        filters: Filters,
        views: builtins.list[tuple[Entry, Image]],
    ) -> bool:
        if not self._as_dangling(entry, boolean(filters, "dangling")):
            return False
        if filters.get("reference") and not imageviews.match_reference(entry, filters["reference"]):
            return False
        created = imageviews.created(image)
        now = clock.now() / 1e9
        if any(created >= parse_time(text, now) for text in filters.get("until", ())):
            return False
        for key in ("before", "since"):
            for value in filters.get(key, ()):
                other, _ = self._core.images.find(value)
                moment = next(imageviews.created(view) for e, view in views if e is other)
                if (created >= moment) if key == "before" else (created <= moment):
                    return False
        return match_labels(image.config.defaults.labels or {}, filters)

    def _as_dangling(self, entry: Entry, wanted: bool | None) -> bool:
        """Whether the filter ``dangling`` lets an image through.

        One known by digest alone is both: it has no tag, and it has a name.
        """
        alike = self._core.images.alike(entry)
        if wanted is None:
            return True
        return not imageviews.tags(*alike) if wanted else any(other.names for other in alike)

    def _layer_size(self, chain: Digest) -> int:
        try:
            return self._core.snapshots.usage(str(chain)).size
        except SampanError:
            return 0

    def _own_size(self, entry: Entry, image: Image) -> int:
        """Bytes of the layers that go with an image; blocks."""
        chains = imageremoval.unshared(self._core, image, leaving=entry)
        return sum(self._layer_size(chain) for chain in chains)

    def _size(self, image: Image) -> int:
        """Bytes of the unpacked layers; blocks."""
        return sum(self._layer_size(chain) for chain in image.chain_ids)

    async def inspect(
        self, ref: str, *, manifests: bool = False, platform: str | None = None
    ) -> ImageInspect:
        """Everything known about an image; NotFound ``No such image: ref``."""
        entry, image = await find_image(self._core, ref, platform)
        size = await self._core.threads.run(self._size, image)
        alike = [entry] if platform else self._core.images.alike(entry)
        found = imageviews.inspect(entry, alike, image, size, self._core.snapshots.name)
        if manifests:
            users = imagemanifests.users(self._core)
            listed = await self._core.threads.run(
                imagemanifests.summaries, self._core, entry, users
            )
            found = msgspec.structs.replace(found, manifests=listed)
        if found.parent:
            try:
                self._core.images.find(found.parent)
            except NotFound:  # it was made elsewhere, or its parent is gone
                return msgspec.structs.replace(found, parent=None)
        return found

    async def history(
        self, ref: str, platform: str | None = None
    ) -> builtins.list[ImageHistoryResponseItem]:
        """The image's layers and the instructions that made them, newest first."""
        entry, image = await find_image(self._core, ref, platform)

        def read() -> builtins.list[ImageHistoryResponseItem]:
            ancestors = imageparents.ancestors(self._core, image)
            return imageviews.history(entry, image, self._layer_size, ancestors)

        return await self._core.threads.run(read)

    async def layers(self, ref: str, platform: str | None = None) -> builtins.list[ImageLayer]:
        """The layers of an image, lowest first."""
        return await imagelayers.layers(self._core, ref, platform)

    async def changes(self, ref: str, since: str = "") -> builtins.list[FilesystemChange]:
        """What an image changed: its last layer, or everything ``since`` another image."""
        return await imagelayers.changes(self._core, ref, since)

    async def mount(self, ref: str) -> ImageMount:
        """The mount that shows an image read-only; its layers stay until :meth:`unmount`."""
        return await imagelayers.mount(self._core, ref)

    async def unmount(self, ref: str) -> None:
        """No longer keep a mounted image; NotFound when it is not mounted."""
        await imagelayers.unmount(self._core, ref)

    async def missing(self, digests: Sequence[str]) -> builtins.list[str]:
        """Those of ``digests`` (of blobs) that are not stored here."""
        return await imagelayers.missing(self._core, digests)

    async def tag(self, ref: str, repo: str, tag: str = "") -> None:
        """Give an image another name."""
        entry, _ = self._core.images.find(ref)
        reference = Reference.parse(repo)
        if reference.digest is not None:
            raise InvalidParameter("refusing to create a tag with a digest reference")
        if reference.familiar_name == "sha256":
            raise InvalidParameter(
                "refusing to create an ambiguous tag using digest algorithm as name"
            )
        name = imageviews.parse_repository(repo, tag)
        await self._core.state.write(insert_name(str(name), entry, clock.now()))
        self._core.images.name(str(name), entry)
        self._core.events.publish("image", "tag", str(entry.id), {"name": name.familiar})

    async def remove(
        self,
        ref: str,
        *,
        force: bool = False,
        noprune: bool = False,
        platforms: Sequence[str] = (),
    ) -> builtins.list[ImageDeleteResponseItem]:
        """Untag, and delete when it was the last name; Conflict when containers use it.

        Images without a name that it was made from go along, unless ``noprune``.
        With ``platforms`` (``force`` is required) only what they need of it goes, names stay.
        """
        if platforms:
            wanted = [Platform.parse(text) for text in platforms]
            return await imageplatforms.remove(self._core, ref, wanted, force=force)
        return await imageremoval.remove(self._core, ref, force=force, noprune=noprune)

    async def prune(self, filters: Filters | None = None) -> ImagesPruneReport:
        """Delete unused images (dangling ones unless ``dangling=false``).

        Of those in use one tag stays. What images that stay were made from is not dangling.
        """
        checked = check_filters(filters, ("dangling", "label", "label!", "until"))
        only_dangling = boolean(checked, "dangling", True)
        limit = until(checked, clock.now() / 1e9)
        core = self._core
        deleted: builtins.list[ImageDeleteResponseItem] = []
        freed = 0
        views = await self._views()
        made = imageparents.children(image for _, image in views)
        views.sort(key=lambda pair: len(pair[1].config.document.history or ()), reverse=True)
        for entry, image in views:  # whatever was made from an image comes before it
            if (
                (only_dangling and (imageviews.tags(entry) or made[str(image.id)] > 0))
                or (limit is not None and entry.created / 1e9 > limit)
                or not match_labels(image.config.defaults.labels or {}, checked)
            ):
                continue
            if imageremoval.holders(core, entry):
                deleted += await imageremoval.untag_all_but_one(core, entry)
                continue
            freed += await core.threads.run(self._own_size, entry, image)
            if len(core.images.alike(entry)) > 1:  # by its id, others would go along
                deleted += await imageremoval.remove_entry(core, entry)
            else:
                deleted += await imageremoval.remove(core, str(entry.id), force=True, noprune=True)
            if parent := image.config.document.parent:
                made[parent] -= 1
        core.events.publish("image", "prune", "", {"reclaimed": str(freed)})
        return ImagesPruneReport(images_deleted=deleted or None, space_reclaimed=freed)

    async def load(
        self,
        body: AsyncIterator[bytes],
        *,
        quiet: bool = False,
        platform: str | Sequence[str] | None = None,
    ) -> AsyncIterator[Progress]:
        """Take in a docker-archive or OCI layout tar, compressed or not; of these platforms."""
        return imageflows.load_images(self._core, body, platforms=_platforms(platform))

    async def save(
        self,
        refs: builtins.list[str],
        platform: str | Sequence[str] | None = None,
        without: Sequence[str] = (),
    ) -> AsyncIterator[bytes]:
        """A tar with the images (docker-archive and OCI layout in one).

        Of an image for several platforms, everything that is here, or what ``platform`` names.
        ``without`` are digests of blobs to leave out, because who loads the tar has them.
        """
        return await imageflows.save_images(
            self._core, refs, _platforms(platform), {Digest.parse(text) for text in without}
        )

    async def import_(
        self, body: AsyncIterator[bytes], options: ImportOptions
    ) -> AsyncIterator[Progress]:
        """Make an image of a root file system tar; the last status is the new id."""
        imageflows.check_import(options)
        return imageflows.import_image(self._core, body, options)

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
        return await transfer.pull(
            self._core, ref, tag=tag, platform=platform, auth=auth, all_tags=all_tags
        )

    async def push(
        self,
        ref: str,
        *,
        tag: str = "",
        platform: str | None = None,
        auth: RegistryAuth | None = None,
    ) -> AsyncIterator[Progress]:
        """Send an image to its registry; without ``tag``, all tags of the repository."""
        return await pushing.push(self._core, ref, tag=tag, platform=platform, auth=auth)

    async def search(
        self,
        term: str,
        *,
        limit: int | None = None,
        filters: Filters | None = None,
        auth: RegistryAuth | None = None,
    ) -> builtins.list[ImageSearchItem]:
        """Search the default registry."""
        check_filters(filters, ("is-official", "is-automated", "stars"))
        return await transfer.search(self._core, term, limit=limit, filters=filters, auth=auth)

    async def distribution(self, ref: str, auth: RegistryAuth | None = None) -> DistributionInspect:
        """Descriptor and platforms of a reference, asked of its registry."""
        return await transfer.distribution(self._core, ref, auth)


def _platforms(names: str | Sequence[str] | None) -> builtins.list[Platform]:
    return [Platform.parse(name) for name in ([names] if isinstance(names, str) else names or ())]
