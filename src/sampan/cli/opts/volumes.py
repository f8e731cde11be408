"""``-v`` and ``--tmpfs``.

volume ::= target | ( source | name ) ":" target [ ":" option { "," option } ]
"""

from __future__ import annotations

import os

from sampan.cli.fault import CliError


def parse_volumes(entries: list[str]) -> tuple[list[str], list[str]]:
    """Binds (``source:target[:options]``, made absolute) and targets of anonymous volumes.

    Raises :class:`CliError`.
    """
    binds = []
    anonymous = []
    for entry in entries:
        if not entry:
            raise CliError("invalid empty volume spec")
        parts = entry.split(":")
        if len(parts) == 1:
            anonymous.append(entry)
            continue
        if not all(parts):
            raise CliError(f"invalid spec: {entry}: empty section between colons")
        source = parts[0]
        if source.startswith("."):
            source = os.path.abspath(source)
        elif source.startswith("~"):
            source = os.path.expanduser(source)
        binds.append(":".join((source, *parts[1:])))
    return binds, anonymous


def parse_tmpfs(entries: list[str]) -> dict[str, str]:
    """Mount options by path."""
    return {path: options for path, _colon, options in (e.partition(":") for e in entries)}
