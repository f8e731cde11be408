"""Nothing of Docker's surface is missing, by the tables of the reference beside the repository."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from sampan.api.router import Match, Router
from sampan.api.routes import all_routes
from sampan.api.version import CURRENT
from sampan.cli.index import GROUPS, lookup
from sampan.cli.main import GLOBAL_FLAGS, load

REFERENCE = Path(__file__).parents[3] / "shared" / "reference"
needs_reference = pytest.mark.skipif(
    not REFERENCE.is_dir(), reason="needs the reference in ../shared beside the repository"
)

#: commands of swarm mode and of plugins, which this engine does not have
ELSEWHERE = ("config", "node", "plugin", "secret", "service", "stack", "swarm", "trust")
#: `docker bake` is a name of a command line plugin
EXCEPTIONS = {"bake"}
#: defaults Go writes for a flag that is not set
ZERO = ("", "0", "0s", "map[]", "<nil>")
#: Go's own profiler, and a method that is answered for every path
UNROUTED = ("/debug/", "/{anyroute}")


def load_reference(name: str) -> object:
    return json.loads((REFERENCE / name).read_text())


@needs_reference
def test_every_command_and_flag_exists() -> None:
    table = lookup()
    missing = []
    reference = load_reference("cli.json")
    assert isinstance(reference, dict)
    for row in reference["docker"]:
        path = row["command"].removeprefix("docker").strip()
        if row["swarm"] or path.partition(" ")[0] in ELSEWHERE or path in {*EXCEPTIONS, *GROUPS}:
            continue
        names = {alias.removeprefix("docker").strip() for alias in row["aliases"]}
        missing += [alias for alias in {path, *names} - {""} if alias not in table]
        flags = {flag.name: flag for flag in (load(table[path]).flags if path else GLOBAL_FLAGS)}
        for wanted in row["flags"]:
            name = wanted["name"].removeprefix("--")
            flag = flags.get(name)
            if flag is None:
                missing += [f"{path} --{name}"] if name != "help" else []
            elif flag.short != (wanted["short"] or "").removeprefix("-"):
                missing.append(f"{path} {wanted['short']}")
            elif (
                path
                and not flag.hidden
                and flag.default != wanted["default"]
                and wanted["default"] not in ZERO
            ):
                missing.append(f"{path} --{name}={wanted['default']}")
    assert missing == []


@needs_reference
def test_every_endpoint_is_routed() -> None:
    router = Router(all_routes())
    rows = load_reference("api.json")
    assert isinstance(rows, list)
    missing = [
        f"{row['method']} {row['path']}"
        for row in rows
        if not row["path"].startswith(UNROUTED)
        and not isinstance(
            router.match(row["method"], re.sub(r"\{[^}]*\}", "x", row["path"]), CURRENT), Match
        )
    ]
    assert missing == []
