"""Timing: alternate between the candidates, take medians, compare as ratios."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table; ``target`` is the largest ratio (or value) that is good enough."""

    what: str
    ours: float
    peer: float | None
    peer_name: str
    unit: str = "ms"
    target: float | None = None
    ratio_target: bool = True

    @property
    def ratio(self) -> float | None:
        return self.ours / self.peer if self.peer else None

    @property
    def reached(self) -> bool | None:
        measured = self.ratio if self.ratio_target else self.ours
        return None if self.target is None or measured is None else measured <= self.target


def alternate(
    candidates: Mapping[str, Callable[[], None]],
    rounds: int,
    warm: int = 2,
    before: Callable[[], None] | None = None,
) -> dict[str, list[float]]:
    """Seconds each call took, the candidates taking turns ``rounds`` times after warming up.

    ``before`` is called before each and not measured.
    """
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for turn in range(warm + rounds):
        for name, call in candidates.items():
            if before is not None:
                before()
            start = time.perf_counter()
            call()
            if turn >= warm:
                times[name].append(time.perf_counter() - start)
    return times


def command(words: Sequence[str]) -> Callable[[], None]:
    """A call that runs a command and insists that it succeeds."""

    def call() -> None:
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)

    return call


def interpreter() -> Callable[[], None]:
    """A call that starts Python and nothing else."""
    return command([str(Path(sys.executable).resolve()), "-I", "-c", "pass"])


def beside_interpreter(what: str, ours: float, target: float) -> Row:
    """``ours`` (milliseconds), and the ``target`` for machines where Python starts in 10 ms, as
    multiples of what Python's start takes on this one."""
    found = medians(alternate({"python": interpreter()}, 20))
    return Row(
        f"{what}, by Python's", ours, found["python"], "python -I -c pass", target=target / 10
    )


def works(words: Sequence[str]) -> bool:
    """Whether a peer's command succeeds on this host (crun refuses a hybrid cgroup tree)."""
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


def medians(times: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Median milliseconds of each candidate."""
    return {name: statistics.median(values) * 1000 for name, values in times.items()}


def table(rows: Sequence[Row]) -> str:
    """The rows as a person reads them."""
    head = ("what", "sampan", "peer", "", "ratio", "target", "")
    cells = [head]
    for row in rows:
        sign = "<= " if row.target is not None else ""
        cells.append(
            (
                row.what,
                f"{row.ours:.2f} {row.unit}",
                f"{row.peer:.2f} {row.unit}" if row.peer is not None else "",
                row.peer_name,
                f"{row.ratio:.2f}" if row.ratio is not None else "",
                f"{sign}{row.target:g}" if row.target is not None else "",
                {True: "ok", False: "MISSED", None: ""}[row.reached],
            )
        )
    widths = [max(len(line[column]) for line in cells) for column in range(len(head))]
    return "\n".join(
        "  ".join(
            text.ljust(width) if index in (0, 3, 6) else text.rjust(width)
            for index, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    )
