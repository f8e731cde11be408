"""Text in columns, aligned as Go's ``text/tabwriter`` aligns it for Docker.

A cell is what a tab ends. A column is as wide as its widest cell in the block of neighbouring
lines that have it, plus padding, and never narrower than the minimum.
"""

from __future__ import annotations

MINIMUM = 10
PADDING = 3


def align(text: str, minimum: int = MINIMUM, padding: int = PADDING) -> str:
    """``text`` with its tabs replaced by the spaces that align its columns."""
    lines = [line.split("\t") for line in text.split("\n")]
    widths: list[list[int]] = [[] for _line in lines]
    _measure(lines, widths, 0, len(lines), 0, (minimum, padding))
    shown = []
    for cells, columns in zip(lines, widths, strict=True):
        padded = (cell.ljust(width) for cell, width in zip(cells, columns, strict=False))
        shown.append("".join(padded) + cells[-1])
    return "\n".join(shown)


def _measure(
    lines: list[list[str]],
    widths: list[list[int]],
    start: int,
    end: int,
    column: int,
    limits: tuple[int, int],
) -> None:
    """Set the width of ``column``, and of those right of it, in lines ``start`` to ``end``."""
    minimum, padding = limits
    line = start
    while line < end:
        if column >= len(lines[line]) - 1:
            line += 1
            continue
        block = line
        width = minimum
        while line < end and column < len(lines[line]) - 1:
            width = max(width, len(lines[line][column]) + padding)
            line += 1
        for inside in range(block, line):
            widths[inside].append(width)
        _measure(lines, widths, block, line, column + 1, limits)
