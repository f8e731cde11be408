"""The tests that need cgroup v2, systemd or Debian's kernel, in a virtual machine that has them.

It is booted once with each kind of cgroups (tools/vm/guest.py); what came of each test is told
here, file by file.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "tools/vm/guest.py"
CACHE = ROOT / ".vm"
SECONDS = 900

_spec = importlib.util.spec_from_file_location("sampan_vm_guest", PROGRAM)
assert _spec is not None
assert _spec.loader is not None
guest = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = guest
_spec.loader.exec_module(guest)

pytestmark = [
    pytest.mark.skipif("SAMPAN_VM" in os.environ, reason="this is the virtual machine"),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    # The first test waits for the whole machine.
    pytest.mark.timeout(SECONDS + 120),
]


@dataclass(frozen=True)
class Outcome:
    """``cases``: (module, name) -> what is wrong with it, "" when it passed."""

    cases: dict[tuple[str, str], str]
    console: str


@pytest.fixture(scope="module")
def unified(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return boot("v2", tmp_path_factory)


@pytest.fixture(scope="module")
def hybrid(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return boot("hybrid", tmp_path_factory)


def boot(cgroups: str, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    try:
        guest.build(CACHE)
    except guest.Missing as error:
        pytest.skip(f"no virtual machine: {error}")
    report = tmp_path_factory.mktemp("vm") / "report.xml"
    command: list[str | Path] = [sys.executable, PROGRAM, "run", CACHE, "--report", report]
    command += ["--timeout", str(SECONDS), "--cgroups", cgroups]
    done = subprocess.run(
        [*guest.WITH_US, *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        timeout=SECONDS + 60,
    )
    console = done.stdout.decode(errors="replace")
    assert done.returncode in (0, 1), console[-5000:]
    cases: dict[tuple[str, str], str] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        problems = [*case.findall("failure"), *case.findall("error"), *case.findall("skipped")]
        wrong = "\n".join(f"{item.get('message')}\n{item.text}" for item in problems)
        key = case.get("classname", ""), case.get("name", "").partition("[")[0]
        cases[key] = cases.get(key, "") + wrong
    return Outcome(cases, console)


@pytest.mark.parametrize("chosen", guest.TESTS)
def test_on_cgroup_v2(unified: Outcome, chosen: str) -> None:
    """All of it ran, and passed."""
    check(unified, chosen)


@pytest.mark.parametrize("chosen", guest.HYBRID_TESTS)
def test_on_hybrid_cgroups(hybrid: Outcome, chosen: str) -> None:
    """The same where systemd divides cgroup v1."""
    check(hybrid, chosen)


def check(outcome: Outcome, chosen: str) -> None:
    path, _, name = chosen.partition("::")
    module = path.removesuffix(".py").replace("/", ".")
    cases = {
        case: wrong
        for case, wrong in outcome.cases.items()
        if (case[0] == module or case[0].startswith(f"{module}.")) and name in ("", case[1])
    }
    assert cases, outcome.console[-5000:]
    wrong = {case: text for case, text in cases.items() if text}
    assert not wrong, "\n\n".join(f"{case}: {text}" for case, text in wrong.items())
