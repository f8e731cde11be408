"""Which process has a port: for error messages only, read from /proc (proc(5))."""

from __future__ import annotations

import contextlib
import os

_UNCONNECTED = {"tcp": "0A", "udp": "07"}


def describe_holder(protocol: str, port: int) -> str:
    """``nginx (pid 123)`` for the process listening on ``port``; "" when it cannot be told."""
    inodes = _inodes(protocol, port)
    if not inodes:
        return ""
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError):  # processes end while we look
            for fd in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    if os.readlink(f"/proc/{pid}/fd/{fd}") in inodes:
                        return f"{_name(pid)} (pid {pid})"
    return ""


def _inodes(protocol: str, port: int) -> frozenset[str]:
    found = set()
    for table in (protocol, f"{protocol}6"):
        try:
            with open(f"/proc/thread-self/net/{table}", encoding="ascii") as file:
                lines = file.readlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            same = int(fields[1].rpartition(":")[2], 16) == port
            if same and fields[3] == _UNCONNECTED.get(protocol):
                found.add(f"socket:[{fields[9]}]")
    return frozenset(found)


def _name(pid: str) -> str:
    with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
        return file.read().strip()
