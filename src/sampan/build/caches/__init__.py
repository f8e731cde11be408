"""Where exported caches are kept: each backend stores blobs and one configuration that names them.

A backend is used by one build at a time, from worker threads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from sampan.content import ContentStore
from sampan.model.descriptor import Descriptor


class Backend(Protocol):
    """A place for an exported cache."""

    def load(self) -> bytes | None:
        """The configuration (:mod:`sampan.build.cachefile`), None when there is none."""
        ...

    def fetch(self, blob: Descriptor) -> Iterator[bytes]:
        """A blob's bytes, not verified. Raises NotFound, Unavailable."""
        ...

    def save(self, config: bytes, blobs: Sequence[Descriptor], content: ContentStore) -> None:
        """Store blobs that are not there yet, then the configuration. Raises Unavailable."""
        ...
