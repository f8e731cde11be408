"""Images of a remote engine, under the names of the embedded one."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Iterator, Sequence

from sampan.client.encoding import auth_headers
from sampan.client.encoding import filters as encoded
from sampan.client.transport import Transport
from sampan.model.reference import Reference
from sampan.wire.base import Json
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
from sampan.wire.options import Filters, ImportOptions, RegistryAuth

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.client.api import Query

_TAR = {"Content-Type": "application/x-tar"}


class Images:
    """Images of a remote engine. ``ref`` is a reference, an id or a unique id prefix."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(
        self,
        *,
        all: bool = False,
        filters: Filters | None = None,
        shared_size: bool = False,
        digests: bool = False,
        manifests: bool = False,
    ) -> builtins.list[ImageSummary]:
        """Images, newest first."""
        query: Query = {
            "all": all,
            "filters": encoded(filters),
            "shared-size": shared_size,
            "digests": digests,
            "manifests": manifests,
        }
        return self._transport.call(builtins.list[ImageSummary], "GET", "/images/json", query)

    def inspect(
        self, ref: str, *, manifests: bool = False, platform: str | None = None
    ) -> ImageInspect:
        """Everything known about an image; NotFound ``No such image: ref``."""
        query = {"manifests": manifests, "platform": platform}
        return self._transport.call(ImageInspect, "GET", f"/images/{ref}/json", query)

    def history(
        self, ref: str, platform: str | None = None
    ) -> builtins.list[ImageHistoryResponseItem]:
        """The image's layers and the instructions that made them, newest first."""
        return self._transport.call(
            builtins.list[ImageHistoryResponseItem],
            "GET",
            f"/images/{ref}/history",
            {"platform": platform},
        )

    def layers(self, ref: str, platform: str | None = None) -> builtins.list[ImageLayer]:
        """The layers of an image, lowest first."""
        return self._transport.call(
            builtins.list[ImageLayer], "GET", f"/images/{ref}/layers", {"platform": platform}
        )

    def changes(self, ref: str, since: str = "") -> builtins.list[FilesystemChange]:
        """What an image changed: its last layer, or everything ``since`` another image."""
        return self._transport.call(
            builtins.list[FilesystemChange], "GET", f"/images/{ref}/changes", {"since": since}
        )

    def mount(self, ref: str) -> ImageMount:
        """The mount that shows an image read-only; its layers stay until :meth:`unmount`."""
        return self._transport.call(ImageMount, "POST", f"/images/{ref}/mount")

    def unmount(self, ref: str) -> None:
        """No longer keep a mounted image; NotFound when it is not mounted."""
        self._transport.do("POST", f"/images/{ref}/unmount")

    def missing(self, digests: Sequence[str]) -> builtins.list[str]:
        """Those of ``digests`` (of blobs) that are not stored here."""
        query: Query = {"digest": builtins.list(digests)}
        return self._transport.call(builtins.list[str], "GET", "/images/missing", query)

    def tag(self, ref: str, repo: str, tag: str = "") -> None:
        """Give an image another name."""
        self._transport.do("POST", f"/images/{ref}/tag", {"repo": repo, "tag": tag})

    def remove(
        self,
        ref: str,
        *,
        force: bool = False,
        noprune: bool = False,
        platforms: Sequence[str] = (),
    ) -> builtins.list[ImageDeleteResponseItem]:
        """Untag, and delete when it was the last name; Conflict when containers use it.

        With ``platforms`` (``force`` is required) only what they need of it goes, names stay.
        """
        return self._transport.call(
            builtins.list[ImageDeleteResponseItem],
            "DELETE",
            f"/images/{ref}",
            {"force": force, "noprune": noprune, "platforms": builtins.list(platforms)},
        )

    def prune(self, filters: Filters | None = None) -> ImagesPruneReport:
        """Delete unused images (dangling ones unless ``dangling=false``)."""
        query: Query = {"filters": encoded(filters)}
        return self._transport.call(ImagesPruneReport, "POST", "/images/prune", query)

    def load(
        self,
        body: Iterable[bytes],
        *,
        quiet: bool = False,
        platform: str | Sequence[str] | None = None,
    ) -> Iterator[dict[str, Json]]:
        """Take in a docker-archive or OCI layout tar, compressed or not."""
        query: Query = {"quiet": quiet, "platform": _platforms(platform)}
        return self._transport.progress("/images/load", query, body, _TAR)

    def save(
        self,
        refs: builtins.list[str],
        platform: str | Sequence[str] | None = None,
        without: Sequence[str] = (),
    ) -> Iterator[bytes]:
        """A tar with the images (docker-archive and OCI layout in one), some blobs left out."""
        query: Query = {
            "names": refs,
            "platform": _platforms(platform),
            "without": builtins.list(without),
        }
        return self._transport.pieces("GET", "/images/get", query)

    def import_(self, body: Iterable[bytes], options: ImportOptions) -> Iterator[dict[str, Json]]:
        """Make an image of a root file system tar; the last status is the new id."""
        query: Query = {
            "fromSrc": "-",
            "repo": options.repo,
            "tag": options.tag,
            "message": options.message,
            "changes": builtins.list(options.changes),
            "platform": options.platform,
        }
        return self._transport.progress("/images/create", query, body, _TAR)

    def pull(
        self,
        ref: str,
        *,
        tag: str = "",
        platform: str | None = None,
        auth: RegistryAuth | None = None,
        all_tags: bool = False,
    ) -> Iterator[dict[str, Json]]:
        """Fetch an image from its registry; without a tag it is ``latest``."""
        reference = Reference.parse(ref)
        if not tag and not all_tags:
            reference = reference.with_default_tag()
            tag = str(reference.digest) if reference.digest else reference.tag
        query = {"fromImage": reference.familiar_name, "tag": tag, "platform": platform}
        return self._transport.progress("/images/create", query, None, auth_headers(auth))

    def push(
        self,
        ref: str,
        *,
        tag: str = "",
        platform: str | None = None,
        auth: RegistryAuth | None = None,
    ) -> Iterator[dict[str, Json]]:
        """Send an image to its registry; without ``tag``, all tags of the repository."""
        query = {"tag": tag, "platform": platform}
        return self._transport.progress(f"/images/{ref}/push", query, None, auth_headers(auth))

    def search(
        self,
        term: str,
        *,
        limit: int | None = None,
        filters: Filters | None = None,
        auth: RegistryAuth | None = None,
    ) -> builtins.list[ImageSearchItem]:
        """Search the default registry."""
        query: Query = {"term": term, "limit": limit, "filters": encoded(filters)}
        return self._transport.call(
            builtins.list[ImageSearchItem],
            "GET",
            "/images/search",
            query,
            None,
            auth_headers(auth),
        )

    def distribution(self, ref: str, auth: RegistryAuth | None = None) -> DistributionInspect:
        """Descriptor and platforms of a reference, asked of its registry."""
        return self._transport.call(
            DistributionInspect,
            "GET",
            f"/distribution/{ref}/json",
            None,
            None,
            auth_headers(auth),
        )


def _platforms(names: str | Sequence[str] | None) -> builtins.list[str]:
    return [names] if isinstance(names, str) else builtins.list(names or ())
