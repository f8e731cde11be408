"""What ``GET /sampan/containers/{name}/denials`` answers; no object of Docker's."""

from __future__ import annotations

import msgspec

from sampan.wire.base import Object


class SystemCallDenial(Object, kw_only=True, frozen=True, omit_defaults=True):
    """A system call a seccomp profile acted on, as the kernel logged it.

    ``time``: nanoseconds since the epoch. ``name``: "" where the number could not be named.
    ``action``: ``kill``, ``trap`` or ``log``.
    """

    time: int = msgspec.field(name="Time")
    pid: int = msgspec.field(name="Pid")
    program: str = msgspec.field(name="Program")
    number: int = msgspec.field(name="Number")
    name: str = msgspec.field(name="Name")
    action: str = msgspec.field(name="Action")
