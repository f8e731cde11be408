"""Apply a layer: a possibly compressed tar stream onto a directory."""

from __future__ import annotations

from sampan.layer.model import DEFAULT_LIMITS, Applied, Destination, Limits, Readable
from sampan.model.digest import Digest


def apply(
    stream: Readable,
    destination: Destination,
    *,
    digest: Digest | None = None,
    diff_id: Digest | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Applied:
    """Extract ``stream`` (gzip, zstd or plain tar, detected) strictly inside ``destination``.

    Reads the stream to its end and verifies ``digest`` (of the stream as it comes) and
    ``diff_id`` (of the tar inside) if given. Raises ArchiveRefused (malformed, leaves the
    destination, bomb, device node without the right), DigestMismatch, NoSpace. On failure the
    destination holds a part of the layer: the caller throws the whole snapshot away.
    """
    raise NotImplementedError
