"""Progress of pulls, pushes, loads and builds: JSON records to lines.

On a terminal each layer has a line of its own that is rewritten in place; elsewhere a record is
one line, and records that only move a progress bar are left out.
"""

from __future__ import annotations

import sys

from sampan.cli.terminal import width
from sampan.cli.units import human_size
from sampan.client.document import number, table, text
from sampan.client.failure import StreamFailed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import TextIO

    from sampan.client.document import Document

_BAR = 50


class Progress:
    """Shows records as they come."""

    def __init__(
        self,
        descriptor: int,
        *,
        terminal: bool,
        on_aux: Callable[[Document], None] | None = None,
    ) -> None:
        """``on_aux`` is given the records' machine-readable part (digests, ids)."""
        self._out: TextIO = sys.stderr if descriptor == 2 else sys.stdout
        self._descriptor = descriptor
        self._terminal = terminal
        self._on_aux = on_aux
        self._lines: dict[str, int] = {}

    def show(self, records: Iterable[Document]) -> None:
        """Show every record. Raises :class:`StreamFailed` for an error record."""
        for record in records:
            self._record(record)
            self._out.flush()

    def swallow(self, records: Iterable[Document]) -> None:
        """Show nothing. Raises :class:`StreamFailed` for an error record."""
        for record in records:
            self._check(record)

    def _check(self, record: Document) -> None:
        detail = table(record, "errorDetail")
        message = text(detail, "message") or text(record, "error")
        if message:
            raise StreamFailed(message, number(detail, "code") or 1)

    def _record(self, record: Document) -> None:
        aux = record.get("aux")
        if isinstance(aux, dict):
            if self._on_aux is not None:
                self._on_aux(aux)
            return
        self._check(record)
        if "stream" in record:
            shown = text(record, "stream")
            if not self._terminal:  # the daemon marks what a build's steps write to stderr
                shown = shown.replace("\x1b[91m", "").replace("\x1b[0m", "")
            self._out.write(shown)
            return
        progress = self._progress(record)
        identity = text(record, "id")
        status = text(record, "status")
        shown = f"{identity}: {status}" if identity else status
        if self._terminal and identity:
            self._rewrite(identity, f"{shown} {progress}" if progress else shown)
        elif not progress:
            self._out.write(shown + "\n")
            if not identity:
                self._lines.clear()

    def _rewrite(self, identity: str, shown: str) -> None:
        """Write the line of ``identity``, which may be some lines up."""
        if identity not in self._lines:
            self._lines[identity] = len(self._lines)
            self._out.write(f"{shown}\x1b[K\n")
            return
        up = len(self._lines) - self._lines[identity]
        self._out.write(f"\x1b[{up}A\x1b[2K\r{shown}\x1b[{up}B\r")

    def _progress(self, record: Document) -> str:
        detail = table(record, "progressDetail")
        current, total = number(detail, "current"), number(detail, "total")
        if not detail or (current <= 0 and total <= 0):
            return ""
        units = text(detail, "units")
        if total <= 0:
            return f"{current} {units}" if units else human_size(current)
        ratio = min(current / total, 1.0)
        numbers = f"{current}/{total} {units}" if units else _sizes(current, total)
        if width(self._descriptor) <= 110 and len(numbers) + _BAR > width(self._descriptor):
            return numbers
        filled = int(ratio * _BAR)
        bar = ("=" * filled + ">").ljust(_BAR)
        return f"[{bar}]  {numbers}"


def _sizes(current: int, total: int) -> str:
    return f"{human_size(current):>8}/{human_size(total)}"
