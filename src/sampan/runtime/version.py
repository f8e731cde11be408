"""Which code a launcher runs: so that an upgraded daemon does not go on with an old one."""

from __future__ import annotations

import os
import sys

# hashlib would bring OpenSSL, which every process forked from a launcher carried along.
from _blake2 import blake2b

_PACKAGES = ("runtime", "kernel", "kernel/cgroup", "model")


def source_root() -> str:
    """The directory that holds the ``sampan`` package."""
    return os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def fingerprint() -> str:
    """A digest of what a launcher is made of: interpreter; name, size and time of each source."""
    digest = blake2b(sys.version.encode(), digest_size=32)
    base = os.path.join(source_root(), "sampan")
    for package in _PACKAGES:
        with os.scandir(os.path.join(base, package)) as entries:
            for entry in sorted(entries, key=lambda e: e.name):
                if entry.name.endswith(".py"):
                    status = entry.stat()
                    digest.update(f"{entry.name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()
