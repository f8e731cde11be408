"""linux.intelRdt from the command line: refused where there is no resctrl, acted on where there is.

Machines with it are rare: a directory stands in, whose groups get files when they are made.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from sampan.kernel import resctrl
from sampan.runtime.oci_documents import template
from tests.kernel.oci.conftest import PROGRAM, Runtime
from tests.security.runtime.mutants import Cut, mutant

MAKE = """        os.mkdir(path, 0o755)
"""
FILL = """        os.mkdir(path, 0o755)
        os.mkdir(path + "/mon_groups")
        for name in ("schemata", "tasks"):
            open(f"{path}/{name}", "x").close()
"""
TAKE = """        os.rmdir(path)
"""
EMPTY = """        import shutil
        os.stat(path)
        shutil.rmtree(path)
"""


def linux(runtime: Runtime, **wanted: Any) -> dict[str, Any]:
    cgroups = f"{runtime.parent}/c"
    return {"linux": {**template()["linux"], "cgroupsPath": cgroups, "intelRdt": wanted}}


@pytest.fixture
def tree(runtime: Runtime, tmp_path: Path) -> Path:
    """What stands in for resctrl; the runtime is one that uses it."""
    root = tmp_path / "resctrl"
    (root / "mon_groups").mkdir(parents=True)
    for name in ("schemata", "tasks"):
        (root / name).touch()
    runtime.program = mutant(
        tmp_path / "program",
        Cut("kernel/resctrl.py", '"/sys/fs/resctrl"', repr(str(root))),
        Cut("kernel/resctrl.py", MAKE, FILL),
        Cut("kernel/resctrl.py", TAKE, EMPTY),
    )
    return root


@pytest.mark.skipif(resctrl.available(), reason="this machine has resctrl")
def test_refused_where_there_is_none(runtime: Runtime) -> None:
    result = runtime.run("true", **linux(runtime, closID="gold"))
    assert result.returncode == 1
    assert "linux.intelRdt: this machine has no resctrl" in result.stderr


def test_life(runtime: Runtime, tree: Path) -> None:
    """create makes and joins, exec joins, update changes, delete removes."""
    wanted = {"l3CacheSchema": "L3:0=f", "enableMonitoring": True}
    runtime.config("c", "sleep", "1000", **linux(runtime, **wanted))
    made = runtime.create("c")
    assert made.returncode == 0, made.stdout
    group = tree / "c"
    assert (group / "schemata").read_text() == "L3:0=f\n"
    pid = str(runtime.pid("c"))
    assert (group / "tasks").read_text() == (group / "mon_groups/c/tasks").read_text() == pid
    runtime.ok("start", "c")
    file = runtime.bundle / "pid"
    runtime.ok("exec", "--pid-file", file, "c", "true")
    assert (group / "tasks").read_text() == file.read_text() != pid
    runtime.ok("update", "--mem-bw-schema", "MB:0=20", "c")
    assert (group / "schemata").read_text() == "MB:0=20\n"
    runtime.ok("kill", "c", "KILL")
    runtime.wait("c")
    runtime.ok("delete", "c")
    assert not group.exists()
    features = json.loads(runtime.ok("features"))["linux"]["intelRdt"]
    assert features == {"enabled": True, "schemata": True, "monitoring": True}


def test_what_fails_later_leaves_no_group(runtime: Runtime, tree: Path) -> None:
    runtime.config("c", "/nowhere", **linux(runtime, enableMonitoring=True))
    assert runtime.create("c").returncode == 1
    assert not (tree / "c").exists()
    runtime.config("d", "true", **linux(runtime, closID="gold"))
    failed = runtime.create("d")
    assert failed.returncode == 1
    assert "gold" in failed.stdout
    assert os.listdir(tree / "mon_groups") == []


def test_update_without_a_group(runtime: Runtime) -> None:
    runtime.config("c", "sleep", "1000")
    assert runtime.create("c").returncode == 0
    result = runtime("update", "--l3-cache-schema", "L3:0=f", "c")
    assert "intelRdt is not enabled" in result.stderr
    assert runtime.program == PROGRAM
