"""What an archive of images was found to hold, before any of it is kept."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from sampan.errors import DigestMismatch
from sampan.image.media import layer_type
from sampan.image.spool import File
from sampan.model.descriptor import Descriptor
from sampan.model.digest import Digest
from sampan.model.reference import Reference


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One image or index and the names it has."""

    target: Descriptor
    names: tuple[Reference, ...]


@dataclass(slots=True)
class Bundle:
    """Images, the spooled files they need, and documents made for them."""

    found: list[Found] = field(default_factory=list)
    files: list[File] = field(default_factory=list)
    documents: list[bytes] = field(default_factory=list)
    #: manifests about others, each with its subject; in an order in which it follows that
    referrers: list[tuple[Digest, Descriptor]] = field(default_factory=list)

    def add(self, found: Found) -> None:
        """Add an image; one that is there already only gets more names."""
        for index, present in enumerate(self.found):
            if present.target.digest == found.target.digest:
                names = dict.fromkeys((*present.names, *found.names))
                self.found[index] = replace(present, names=tuple(names))
                return
        self.found.append(found)

    @staticmethod
    def verify(actual: Digest, announced: Digest) -> None:
        """Raise DigestMismatch unless a layer's archive has its diff id."""
        if actual != announced:
            raise DigestMismatch(f"a layer's archive has digest {actual}, not {announced}")


def layer_descriptor(file: File) -> Descriptor:
    """The descriptor of a spooled layer."""
    return Descriptor(media_type=layer_type(file.compression), digest=file.digest, size=file.size)
