"""The images an engine knows: names -> targets, targets -> views, and how a reference finds one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from sampan.content import ContentStore
from sampan.engine.state import Statement
from sampan.errors import InvalidParameter, NotFound
from sampan.image import Image, Variant, open_image, variants
from sampan.image.document import descriptor
from sampan.model import attachment
from sampan.model.descriptor import Descriptor
from sampan.model.digest import Digest
from sampan.model.platform import Platform
from sampan.model.reference import Reference
from sampan.wire.container import OCIDescriptor


@dataclass(slots=True, eq=False, kw_only=True)
class Entry:
    """One image: its target (manifest or index), its id for this host, when it came (Unix ns).

    ``pushed`` is the manifest that registries are given instead of the target, if there is one;
    ``referrers`` are manifests (signatures, SBOMs) about what the target leads to.
    """

    target: Descriptor
    id: Digest
    created: int
    names: set[str]
    pushed: Digest | None = None
    referrers: tuple[Descriptor, ...] = ()
    #: when a container was last made of it (Unix ns), and what of that is in the state
    used: int = 0
    used_stored: int = 0

    @property
    def references(self) -> list[Reference]:
        """Its names, sorted, parsed."""
        return [Reference.parse(name) for name in sorted(self.names)]


class ImageTable:
    """All images; methods that read content say so and block (call them from threads)."""

    def __init__(
        self,
        content: ContentStore,
        meanings: Callable[[str], Iterable[Reference]] = lambda text: (),
    ) -> None:
        """``meanings`` tells what else a short name may stand for (``registries.conf``)."""
        self.content = content
        self._meanings = meanings
        self._entries: dict[str, Entry] = {}
        self._names: dict[str, Entry] = {}
        self._views: dict[str, Image] = {}
        self._variants: dict[str, tuple[Variant, ...]] = {}
        #: set whenever an image comes; whoever waits for it clears it
        self.changed = asyncio.Event()

    def __iter__(self) -> Iterator[Entry]:
        return iter(list(self._entries.values()))

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, target: Descriptor, image_id: Digest, created: int) -> Entry:
        """The entry of a target, made if need be; what was read of it before is forgotten."""
        key = str(target.digest)
        entry = self._entries.get(key)
        self._views.pop(key, None)
        self._variants.pop(key, None)
        self.changed.set()
        if entry is None:
            entry = Entry(target=target, id=image_id, created=created, names=set())
            self._entries[key] = entry
        return entry

    def reread(self, entry: Entry) -> None:
        """Forget what was read of an entry: some of its content went."""
        self._views.pop(str(entry.target.digest), None)
        self._variants.pop(str(entry.target.digest), None)

    def name(self, name: str, entry: Entry) -> Entry | None:
        """Point ``name`` at ``entry``; returns the entry that had it before."""
        before = self._names.get(name)
        if before is not None:
            before.names.discard(name)
        self._names[name] = entry
        entry.names.add(name)
        return before if before is not entry else None

    def unname(self, name: str) -> Entry | None:
        """Take a name away; returns what it named."""
        entry = self._names.pop(name, None)
        if entry is not None:
            entry.names.discard(name)
        return entry

    def forget(self, entry: Entry) -> None:
        """Drop an entry and whatever names it has."""
        for name in list(entry.names):
            self.unname(name)
        self._entries.pop(str(entry.target.digest), None)
        self._views.pop(str(entry.target.digest), None)
        self._variants.pop(str(entry.target.digest), None)

    def find(self, text: str) -> tuple[Entry, Reference | None]:
        """The image ``text`` means, and the reference if it was found by name.

        Raises NotFound in dockerd's words, InvalidParameter for a malformed or ambiguous one.
        """
        bare = text.removeprefix("sha256:")
        exact = self._by_id(bare, whole=True)
        if exact is not None:
            return exact, None
        reference = self._parse(text)
        if reference is not None and (named := self._by_reference(reference)) is not None:
            return named, reference
        found = self._by_id(bare, whole=False)
        if found is not None:
            return found, None
        for meaning in self._meanings(text) if reference is not None else ():
            if (named := self._by_reference(meaning)) is not None:
                return named, meaning
        shown = reference.with_default_tag().familiar if reference is not None else text
        raise NotFound(f"No such image: {shown}")

    def find_all(self, text: str) -> list[tuple[Entry, Reference | None]]:
        """Every tag of the repository that ``text`` names, or else the one image it means.

        Raises as :meth:`find`.
        """
        reference = self._parse(text)
        if reference is not None and not reference.tag and not reference.digest:
            prefix = f"{reference.name}:"
            tags = [name for name in self._names if name.startswith(prefix)]
            if tags:
                return [(self._names[name], Reference.parse(name)) for name in sorted(tags)]
        return [self.find(text)]

    def twins(self, text: str, entry: Entry) -> list[Entry]:
        """``entry`` and, if ``text`` is (part of) its id, whatever else has that id.

        Manifests that differ may have one configuration, whose digest is the id of them all.
        """
        if not entry.id.hex.startswith(text.removeprefix("sha256:")):
            return [entry]
        return self.alike(entry)

    def alike(self, entry: Entry) -> list[Entry]:
        """All entries with the id of this one, itself among them: people see one image."""
        return [other for other in self._entries.values() if other.id == entry.id]

    def by_target(self, target: str) -> Entry | None:
        """The entry of the manifest or index with this digest."""
        return self._entries.get(target)

    def lookup(self, reference: Reference) -> Entry | None:
        """The image of exactly this name, if there is one."""
        return self._by_reference(reference)

    def _parse(self, text: str) -> Reference | None:
        if text.startswith("sha256:") or (len(text) == 64 and _is_hex(text)):
            return None
        return Reference.parse(text)

    def _by_reference(self, reference: Reference) -> Entry | None:
        if reference.digest is not None:
            for name in (str(reference), f"{reference.name}@{reference.digest}"):
                if (entry := self._names.get(name)) is not None:
                    return entry
            return None
        return self._names.get(str(reference.with_default_tag()))

    def _by_id(self, prefix: str, *, whole: bool) -> Entry | None:
        if not _is_hex(prefix) or (whole and len(prefix) != 64):
            return None
        found = {
            entry.id: entry
            for entry in self._entries.values()
            if entry.id.hex.startswith(prefix) or entry.target.digest.hex.startswith(prefix)
        }
        if len(found) > 1:
            raise InvalidParameter(f"multiple images found with provided prefix: {prefix}")
        return next(iter(found.values()), None)

    def cached(self, entry: Entry) -> Image | None:
        """The view of an entry if it was read before; never blocks."""
        return self._views.get(str(entry.target.digest))

    def of(self, manifest: OCIDescriptor | None) -> Image:
        """The image a container was made of, by its manifest; reads content, blocks.

        Raises NotFound when the image was deleted meanwhile.
        """
        if manifest is None or not manifest.digest:
            raise NotFound("the container was not made of an image")
        found = self._views.get(manifest.digest)
        return found or open_image(self.content, descriptor(manifest, "image manifest"))

    def view(self, entry: Entry, platform: Platform | None = None) -> Image:
        """The image under an entry, for the host's or another platform; reads content, blocks.

        Without one for the host that is here, any that is: it was pulled for another platform.
        """
        if platform is not None:
            return open_image(self.content, entry.target, platform)
        key = str(entry.target.digest)
        found = self._views.get(key)
        if found is None:
            found = self._views[key] = self._open(entry)
        return found

    def _open(self, entry: Entry) -> Image:
        try:
            return open_image(self.content, entry.target)
        except NotFound:
            whole = (variant.image for variant in self.variants(entry) if variant.whole)
            images = [image for image in whole if image is not None]
            if not images:
                raise
        own = [image for image in images if image.id == entry.id]
        return replace((own or images)[0], target=entry.target)

    def variants(self, entry: Entry) -> tuple[Variant, ...]:
        """Every manifest under an entry; reads content, blocks."""
        key = str(entry.target.digest)
        found = self._variants.get(key)
        if found is None:
            found = self._variants[key] = variants(self.content, entry.target)
        return found

    def all_of(self, entry: Entry) -> list[Image]:
        """The images of all platforms under an entry that were pulled; reads content, blocks."""
        found = (variant.image for variant in self.variants(entry))
        return [image for image in found if image is not None]


def _is_hex(text: str) -> bool:
    return bool(text) and all(character in "0123456789abcdef" for character in text)


def insert_image(entry: Entry) -> Statement:
    """The row of an entry."""
    return (
        "INSERT INTO images (digest, media_type, size, config, created) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT (digest) DO UPDATE SET config = excluded.config",
        (
            str(entry.target.digest),
            entry.target.media_type,
            entry.target.size,
            str(entry.id),
            entry.created,
        ),
    )


def insert_name(name: str, entry: Entry, now: int) -> Statement:
    """The row of a name."""
    return (
        "INSERT INTO image_names (name, digest, updated) VALUES (?, ?, ?) "
        "ON CONFLICT (name) DO UPDATE SET digest = excluded.digest, updated = excluded.updated",
        (name, str(entry.target.digest), now),
    )


def update_pushed(entry: Entry) -> Statement:
    """Store which manifest an image was pushed by."""
    return (
        "UPDATE images SET pushed = ? WHERE digest = ?",
        (str(entry.pushed or ""), str(entry.target.digest)),
    )


def update_referrers(entry: Entry) -> Statement:
    """Store what refers to an image."""
    document = [
        [
            *(item.media_type, str(item.digest), item.size, item.artifact_type),
            attachment.tag(item.annotations),
        ]
        for item in entry.referrers
    ]
    return (
        "UPDATE images SET referrers = ? WHERE digest = ?",
        (json.dumps(document), str(entry.target.digest)),
    )


def read_referrers(text: str) -> tuple[Descriptor, ...]:
    """What :func:`update_referrers` stored."""
    return tuple(
        Descriptor(
            media_type=kind,
            digest=Digest.parse(digest),
            size=size,
            artifact_type=artifact,
            annotations={attachment.REF_NAME: tag[0]} if any(tag) else {},
        )
        for kind, digest, size, artifact, *tag in json.loads(text)
    )


def update_used(entry: Entry) -> Statement:
    """Store when an image was last used."""
    return "UPDATE images SET used = ? WHERE digest = ?", (entry.used, str(entry.target.digest))


def delete_name(name: str) -> Statement:
    """Remove the row of a name."""
    return "DELETE FROM image_names WHERE name = ?", (name,)


def delete_image(entry: Entry) -> Statement:
    """Remove the row of an entry; its names must be gone."""
    return "DELETE FROM images WHERE digest = ?", (str(entry.target.digest),)
