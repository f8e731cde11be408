"""The six hooks: order, namespaces, state, timeouts, and what a failing one does."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.oci.conftest import Runtime
from tests.kernel.oci.test_runtime_commands import left_behind

ORDER = [
    "prestart",
    "createRuntime",
    "createContainer",
    "startContainer",
    "poststart",
    "poststop",
]


def hook(script: str, **more: Any) -> dict[str, Any]:
    return {"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"], **more}


def test_every_hook_in_its_place(runtime: Runtime, tmp_path: Path) -> None:
    """Each writes its name, mount namespace and the state it got."""
    (tmp_path / "log").mkdir()
    script = (
        "cat > {log}/{name}.json; readlink /proc/self/ns/mnt > {log}/{name}.ns; "
        "echo {name} >> {log}/order"
    )
    places = dict.fromkeys(ORDER, str(tmp_path / "log")) | {"startContainer": "/log"}
    hooks = {name: [hook(script.format(name=name, log=places[name]))] for name in ORDER}
    config = runtime.config("c", "sh", "-c", "readlink /proc/self/ns/mnt > /log/own")
    config["hooks"] = hooks
    config["annotations"] = {"k": "v"}
    config["mounts"].append(
        {
            "destination": "/log",
            "type": "bind",
            "source": str(tmp_path / "log"),
            "options": ["bind"],
        }
    )
    runtime.write(config)
    assert runtime.create("c").returncode == 0
    pid = runtime.pid("c")
    seen = (tmp_path / "log/order").read_text().split()
    assert seen == ["prestart", "createRuntime", "createContainer"]
    runtime.ok("start", "c")
    runtime.wait("c")
    runtime.ok("delete", "c")
    assert (tmp_path / "log/order").read_text().split() == ORDER

    host = os.readlink("/proc/self/ns/mnt")
    own = (tmp_path / "log/own").read_text().strip()
    for name, status, namespace in (
        ("prestart", "creating", host),
        ("createRuntime", "creating", host),
        ("createContainer", "creating", own),
        ("startContainer", "created", own),
        ("poststart", "running", host),
        ("poststop", "stopped", host),
    ):
        state = json.loads((tmp_path / f"log/{name}.json").read_text())
        assert (state["id"], state["status"]) == ("c", status)
        assert state["bundle"] == str(runtime.bundle)
        assert state["annotations"] == {"k": "v"}
        if namespace == host and name != "poststop":
            assert state["pid"] == pid
        assert (tmp_path / f"log/{name}.ns").read_text().strip() == namespace, name


@pytest.mark.parametrize("name", ["prestart", "createRuntime", "createContainer"])
def test_failing_hook_stops_the_creation(runtime: Runtime, tmp_path: Path, name: str) -> None:
    config = runtime.config("c", "true")
    config["hooks"] = {
        name: [hook("echo why >&2; exit 3")],
        "poststop": [hook(f"touch {tmp_path}/cleaned")],
    }
    runtime.write(config)
    result = runtime("create", "-b", runtime.bundle, "c")
    assert result.returncode == 1
    assert "hook" in result.stderr
    assert "why" in result.stderr
    assert (tmp_path / "cleaned").exists(), "poststop hooks run all the same"
    assert left_behind(runtime) == []


@pytest.mark.parametrize("name", ["startContainer", "poststart"])
def test_failing_hook_ends_the_container(runtime: Runtime, name: str) -> None:
    config = runtime.config("c", "sleep", "1000")
    config["hooks"] = {name: [hook("exit 3")]}
    runtime.write(config)
    assert runtime.create("c").returncode == 0
    pid = runtime.pid("c")
    result = runtime("start", "c")
    assert result.returncode == 1
    assert "hook" in result.stderr
    assert "container does not exist" in runtime("state", "c").stderr
    assert not os.path.exists(f"/proc/{pid}/exe")
    assert left_behind(runtime) == []


def test_failing_poststop_hook_is_a_warning(runtime: Runtime, tmp_path: Path) -> None:
    config = runtime.config("c", "true")
    config["hooks"] = {"poststop": [hook("exit 3"), hook(f"touch {tmp_path}/second")]}
    runtime.write(config)
    assert runtime.create("c").returncode == 0
    log = tmp_path / "log"
    runtime.ok("--log", log, "delete", "c")
    assert (tmp_path / "second").exists()
    assert "level=warning" in log.read_text()
    assert left_behind(runtime) == []


def test_hook_that_takes_too_long(runtime: Runtime) -> None:
    config = runtime.config("c", "true")
    config["hooks"] = {"createRuntime": [hook("sleep 1000", timeout=1)]}
    runtime.write(config)
    result = runtime("create", "-b", runtime.bundle, "c")
    assert result.returncode == 1
    assert "did not end within 1 seconds" in result.stderr
    assert left_behind(runtime) == []
