"""Coverage-guided fuzzing of one target (atheris, extra ``fuzz``); ``make fuzz`` runs all of them.

    python -m tests.fuzz.runtime.guided passwd CORPUS -max_total_time=60

The arguments are libFuzzer's. A finding is a file ``crash-*`` and a traceback.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["sampan"]):
    from tests.fuzz.runtime import targets


def main() -> None:
    """Fuzz the target named first, from its seeds and what earlier runs found."""
    name, corpus, *options = sys.argv[1:]
    target, seeds = targets.TARGETS[name]
    directory = Path(corpus)
    directory.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds):
        (directory / f"seed-{number}").write_bytes(seed)
    atheris.Setup([sys.argv[0], str(directory), *options], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
