"""Acting on files as somebody else (setfsuid(2)): for this thread, for a while."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from sampan.kernel import capabilities, process


@contextlib.contextmanager
def file_system_ids(uid: int, gid: int) -> Iterator[None]:
    """While inside, this thread makes files as ``uid`` and ``gid``, with all its capabilities.

    Through an id map the host's root has no ids and could create nothing; whoever is the root of
    the user namespace with that map has. Raises :class:`OSError`.
    """
    effective, permitted, inheritable = capabilities.capget()
    process.setfsgid(gid)
    process.setfsuid(uid)
    try:
        # capabilities(7): leaving uid 0 dropped those about files from the effective set.
        capabilities.capset(effective, permitted, inheritable)
        yield
    finally:
        process.setfsuid(os.geteuid())
        process.setfsgid(os.getegid())
