"""``python -m bench [NAME...]``: run the measurements and print one table."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping

from bench import build, cost, library, load, network, pull, registry, start, userns
from bench.timing import Row, table

MEASUREMENTS: Mapping[str, Callable[[], Iterator[Row]]] = {
    "run": start.docker_run,
    "runtime": start.runtime,
    "library": library.library,
    "podman": start.podman,
    "userns": userns.user_namespaces,
    "memory": cost.idle_memory,
    "leftovers": cost.leftovers,
    "cli": cost.cold_start,
    "listing": load.listing,
    "followers": load.followers,
    "burst": load.burst,
    "idle": load.idle,
    "network": network.throughput,
    "ports": network.starts,
    "transfer": pull.transfer,
    "registry": registry.serving,
    "build": build.build,
}


def main(names: list[str]) -> int:
    """Measure what is named (all without names); the exit status tells whether targets held."""
    unknown = set(names) - set(MEASUREMENTS)
    if unknown or os.geteuid() != 0:
        print(f"usage (as root): python -m bench [{'|'.join(MEASUREMENTS)}]...", file=sys.stderr)
        return 2
    rows: list[Row] = []
    for name in names or MEASUREMENTS:
        try:
            rows += MEASUREMENTS[name]()
        except FileNotFoundError as missing:
            print(
                f"{name}: skipped, {missing.filename or missing} is not installed", file=sys.stderr
            )
    print(table(rows))
    return 1 if any(row.reached is False for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
