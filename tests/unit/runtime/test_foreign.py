"""What another runtime is told, and what it says."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from sampan.errors import CommandNotExecutable, CommandNotFound, StartFailed, Unsupported
from sampan.kernel.facts import probe
from sampan.model.mount import Mount
from sampan.runtime import foreign, orders
from sampan.runtime.requests import CreateRequest

ROOT = Mount(type="bind", source="/")
RUNC = "runc: unable to start container process: exec: "


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (f'{RUNC}"nope": executable file not found in $PATH', CommandNotFound),
        (f'{RUNC}"/nope": stat /nope: no such file or directory', CommandNotFound),
        (f'{RUNC}"/etc": is a directory', CommandNotExecutable),
        (f'{RUNC}"/etc/passwd": permission denied', CommandNotExecutable),
        ("crun: executable file `nope` not found in $PATH: No such file or directory",
         CommandNotFound),
        ("crun: open executable: Permission denied", CommandNotExecutable),
        ("crun: cannot stat `/run/exec/x`: No such file or directory", StartFailed),
        ("runc: error mounting /executor to /x: permission denied", StartFailed),
    ],
)  # fmt: skip
def test_kinds_of_failure(said: str, kind: type[StartFailed], tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    words = said.partition(": ")[2]
    line = json.dumps({"level": "error", "msg": words})
    (tmp_path / "bundle/log").write_text(f'{{"level":"warning","msg":"w"}}\n{line}\nnonsense\n')
    runtime = foreign.Runtime(
        command=[f"/x/{said.partition(':')[0]}"], directory=str(tmp_path), container_id="c"
    )
    pid = os.posix_spawn("/bin/false", ["false"], {})
    with pytest.raises(StartFailed) as raised:
        foreign._wait(pid, runtime, "log", "create")
    assert type(raised.value) is kind
    assert raised.value.message.lower() == said.lower()
    if kind is not StartFailed:
        # The command line makes its exit codes of these words as they are.
        known = ("executable file not found", "no such file or directory")
        known += ("permission denied", "is a directory")
        assert any(text in raised.value.message for text in known)


def test_a_call_that_does_not_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreign, "_PATIENCE", 0.1)
    runtime = foreign.Runtime(command=["/x/slow"], directory=str(tmp_path), container_id="c")
    pid = os.posix_spawn("/bin/sleep", ["sleep", "100"], {})
    with pytest.raises(StartFailed, match="slow create did not end within 0 seconds"):
        foreign._wait(pid, runtime, "log", "create")
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, 0)


def test_erasing_leaves_nothing_and_tells(tmp_path: Path) -> None:
    program = tmp_path / "runtime-program"
    program.write_text("#!/bin/sh\nexit 3\n")
    program.chmod(0o755)
    for name in ("runtime/c/deep", "bundle/rootfs"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "runtime/c/state").write_text("x")
    (tmp_path / "runtime/c/link").symlink_to("/")
    runtime = foreign.Runtime(command=[str(program)], directory=str(tmp_path), container_id="c")
    assert (
        foreign.erase(runtime) == "runtime-program delete ended with status 3 and did not say why"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["runtime-program"]
    program.unlink()  # nothing to be erased: it is not called
    assert foreign.erase(runtime) == ""
    (tmp_path / "runtime/c").mkdir(parents=True)
    assert foreign.erase(runtime).endswith("No such file or directory")
    assert list(tmp_path.iterdir()) == []


def request(directory: Path, **changes: Any) -> CreateRequest:
    spec: dict[str, Any] = {
        "ociVersion": "1.2.0",
        "root": {"path": "x", "readonly": True},
        "process": {"args": ["x"], "cwd": "/"},
        "domainname": "a.b",
        "linux": {"namespaces": [{"type": "pid"}, {"type": "uts"}], "sysctl": {"a": "b"}},
    }
    spec["linux"] |= changes.pop("linux", {})
    return CreateRequest(
        container_id="c",
        spec=spec,  # type: ignore[arg-type]
        rootfs=changes.pop("rootfs", ()),
        directory=directory,
        runtime=("/usr/bin/runc",),
        **changes,
    )


def told(made: CreateRequest) -> tuple[dict[str, Any], dict[str, Any]]:
    def compile_filter(profile: object) -> Any:
        raise AssertionError("filters are the other runtime's to compile")

    message, blob = orders.of_container(made, probe(), compile_filter)
    return message["foreign"], json.loads(blob)


def test_what_it_is_told(tmp_path: Path) -> None:
    made = request(tmp_path, linux={"seccomp": {"defaultAction": "SCMP_ACT_ALLOW"}})
    driver, config = told(made)
    assert driver == {"runtime": ["/usr/bin/runc"], "own_pids": True, "shared": False}
    assert config["root"] == {"path": f"{tmp_path}/bundle/rootfs", "readonly": True}
    assert config["ociVersion"].startswith("1.0.")
    assert "domainname" not in config
    assert config["linux"]["sysctl"] == {"a": "b", "kernel.domainname": "a.b"}
    assert config["linux"]["seccomp"]
    assert made.spec["linux"]["sysctl"] == {"a": "b"}
    shared = {"namespaces": [{"type": "pid", "path": "/p"}], "rootfsPropagation": "rshared"}
    driver, _ = told(request(tmp_path, linux=shared))
    assert (driver["own_pids"], driver["shared"]) == (False, True)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"init": True}, "an init of ours"),
        ({"systemd": True}, "cgroups of systemd"),
        ({"rootfs": (ROOT, ROOT)}, "mounts beside the root"),
        ({"linux": {"namespaces": [{"type": "user"}]}}, "a user namespace"),
    ],
)
def test_what_it_cannot_be_told(tmp_path: Path, changes: dict[str, Any], what: str) -> None:
    with pytest.raises(Unsupported, match=f"runtime runc: {what}"):
        told(request(tmp_path, **changes))


def test_a_driver_that_dies_is_told(tmp_path: Path) -> None:
    runtime = foreign.Runtime(command=["/x/y"], directory=str(tmp_path), container_id="c")
    null = os.open("/dev/null", os.O_RDWR)
    try:
        with pytest.raises(StartFailed, match="cannot make the process"):
            foreign.make(runtime, b"{}", null, (null, null, null), terminal=False, shared=False)
    finally:
        os.close(null)
    children = subprocess.run(
        ["ps", "--ppid", str(os.getpid()), "-o", "comm="],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "sampan-driver" not in children.stdout
