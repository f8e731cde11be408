"""Apply a layer: a possibly compressed tar stream onto a directory."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from sampan.errors import DigestMismatch, storage_error
from sampan.kernel.openat import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2
from sampan.layer.ahead import Ahead
from sampan.layer.extract import Extractor
from sampan.layer.lowers import Lowers
from sampan.layer.model import DEFAULT_LIMITS, Applied, Destination, Limits, Readable
from sampan.layer.reader import TarReader
from sampan.layer.source import Hashed, Incoming, Source, decompress
from sampan.layer.tree import DIRECTORY_FLAGS
from sampan.model.digest import Digest


def apply(
    stream: Readable,
    destination: Destination,
    *,
    digest: Digest | None = None,
    diff_id: Digest | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Applied:
    """Extract ``stream`` (gzip, zstd, bzip2, xz or plain tar, detected) inside ``destination``.

    Reads the stream to its end and verifies ``digest`` (of the stream as it comes; not computed
    unless given) and ``diff_id`` (of the tar inside). Raises ArchiveRefused (malformed, leaves
    the destination, bomb, device node without the right), DigestMismatch, NoSpace. On failure
    the destination holds a part of the layer: the caller throws the whole snapshot away.
    """
    incoming = Incoming(stream, hashed=digest is not None)
    hashed = Hashed(decompress(incoming))
    with ExitStack() as stack:
        try:
            lowers = stack.enter_context(Lowers(destination.lowers))
            root = os.open(destination.root, DIRECTORY_FLAGS)
        except OSError as error:
            raise storage_error(error, "opening the layer's directory") from error
        stack.callback(os.close, root)
        extractor = stack.enter_context(
            Extractor(root, whiteouts=destination.whiteouts, lowers=lowers)
        )
        limits = limits.within(root)
        source = Source(stack.enter_context(Ahead(hashed)), limits, incoming)
        reader = TarReader(source, limits)
        extractor.extract(reader)
        source.drain()
    actual = hashed.digest
    if digest is not None and incoming.digest != digest:
        raise DigestMismatch(f"the layer has digest {incoming.digest}, not {digest}")
    if diff_id is not None and actual != diff_id:
        raise DigestMismatch(f"the layer's archive has digest {actual}, not {diff_id}")
    return Applied(
        digest=digest,
        compressed_size=incoming.count,
        diff_id=actual,
        size=source.count,
        entries=reader.entries,
        implicit=tuple(extractor.implicit),
    )


def settle(root: Path, implicit: Sequence[bytes], lowers: Sequence[Path]) -> None:
    """Give the ``implicit`` directories of a layer the attributes they have in ``lowers``.

    For a layer that was applied before the layers below it were there: it then is what it would
    have become on top of them. ``lowers`` are topmost first. Raises what the disk raises.
    """
    try:
        with Lowers(lowers) as below, ExitStack() as stack:
            top = os.open(root, DIRECTORY_FLAGS)
            stack.callback(os.close, top)
            for path in implicit:
                model = below.directory(path) if path else below.root_status()
                if model is not None:
                    _resemble(top, path, model)
    except OSError as error:
        raise storage_error(error, "setting attributes of directories") from error


def _resemble(root: int, path: bytes, model: os.stat_result) -> None:
    flags = os.O_RDONLY | os.O_DIRECTORY
    try:
        fd = openat2(root, path or b".", flags, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)
    except OSError:  # a later entry of the layer replaced it
        return
    try:
        os.fchown(fd, model.st_uid, model.st_gid)
        os.fchmod(fd, stat.S_IMODE(model.st_mode))
        if path:
            os.utime(fd, ns=(model.st_mtime_ns, model.st_mtime_ns))
    finally:
        os.close(fd)
