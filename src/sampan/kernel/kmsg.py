"""The kernel's log (Documentation/ABI/testing/dev-kmsg)."""

from __future__ import annotations

import os
from collections.abc import Iterator

_RECORD_SIZE = 8192


def records() -> Iterator[str]:
    """The text of every record still in the ring buffer, oldest first.

    Raises :class:`OSError` where the log may not be read.
    """
    fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        while True:
            try:
                data = os.read(fd, _RECORD_SIZE)
            except BrokenPipeError:
                continue  # overwritten before we came to it: the next read finds the oldest left
            except BlockingIOError:
                return
            yield data.partition(b";")[2].partition(b"\n")[0].decode("utf-8", "replace")
    finally:
        os.close(fd)
