"""A bundle of static busybox, and sampan-runtime as other programs call it."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sampan.kernel import cgroup
from sampan.runtime.oci_documents import template

BUSYBOX = Path("/bin/busybox")
PROGRAM = Path(sys.executable).parent / "sampan-runtime"
APPLETS = """cat chmod cut echo env grep head id kill ls mkdir mount ps readlink sh sleep stat sync
    test touch true tty umask"""
MISSING = [
    what
    for what, there in (
        ("root", os.geteuid() == 0),
        ("static busybox", BUSYBOX.exists()),
        ("sampan-runtime installed", PROGRAM.exists()),
    )
    if not there
]
Config = dict[str, Any]
Result = subprocess.CompletedProcess[str]


@dataclass
class Runtime:
    """``sampan-runtime --root ...``; remembers the ids it was given to clean up.

    ``program``: what is run in place of the installed one.
    """

    root: Path
    bundle: Path
    parent: str
    ids: list[str] = field(default_factory=list)
    program: Path = PROGRAM

    def __call__(self, *words: str | Path, input: str | None = None) -> Result:
        """Run one command; nothing is checked."""
        return subprocess.run(
            [str(word) for word in (self.program, "--root", self.root, *words)],
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def ok(self, *words: str | Path, **more: Any) -> str:
        """Run one command that must work; its standard output."""
        result = self(*words, **more)
        assert result.returncode == 0, (words, result.stdout, result.stderr)
        return result.stdout

    def config(self, container_id: str, *args: str, **changes: Any) -> Config:
        """Write config.json for ``args``; ``changes`` replace keys of process, linux or the top."""
        config: Config = json.loads(json.dumps(template()))
        config["process"].update(terminal=False, args=list(args))
        config["root"]["readonly"] = False
        config["linux"]["cgroupsPath"] = f"{self.parent}/{container_id}"
        for name, value in changes.items():
            section = next(
                (part for part in (config["process"], config["linux"]) if name in part), config
            )
            section[name] = value
        self.write(config)
        self.ids.append(container_id)
        return config

    def write(self, config: Config) -> None:
        (self.bundle / "config.json").write_text(json.dumps(config))

    def run(self, *args: str, **changes: Any) -> Result:
        """``run`` a container of its own with ``args``."""
        container_id = f"run-{len(self.ids)}"
        self.config(container_id, *args, **changes)
        return self("run", "--bundle", self.bundle, container_id)

    def create(self, container_id: str, *words: str | Path) -> Result:
        """``create`` detached from our pipes, which init would keep open."""
        output = self.bundle / f"{container_id}.out"
        with open(output, "w") as file:
            result = subprocess.run(
                [str(self.program), "--root", str(self.root), "create"]
                + ["--bundle", str(self.bundle)]
                + [str(word) for word in words]
                + [container_id],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                timeout=60,
                check=False,
            )
        return subprocess.CompletedProcess(result.args, result.returncode, output.read_text(), "")

    def output(self, container_id: str) -> str:
        """What a created container has written so far."""
        return (self.bundle / f"{container_id}.out").read_text()

    def status(self, container_id: str) -> str:
        return str(json.loads(self.ok("state", container_id))["status"])

    def pid(self, container_id: str) -> int:
        return int(json.loads(self.ok("state", container_id))["pid"])

    def wait(self, container_id: str) -> None:
        """Wait until its first process is gone."""
        pid = self.pid(container_id)
        if pid:
            pidfd = os.pidfd_open(pid)
            poller = select.poll()
            poller.register(pidfd, select.POLLIN)
            assert poller.poll(10_000), "still running"
            os.close(pidfd)


@pytest.fixture(scope="session")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if MISSING:
        pytest.skip(f"needs {', '.join(MISSING)}")
    root = tmp_path_factory.mktemp("rootfs")
    root.chmod(0o755)
    for name in ("bin", "etc", "dev", "proc", "sys", "tmp", "root"):
        (root / name).mkdir()
    shutil.copy(BUSYBOX, root / "bin/busybox")
    for name in APPLETS.split():
        (root / "bin" / name).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    return root


@pytest.fixture
def runtime(rootfs: Path, tmp_path: Path) -> Iterator[Runtime]:
    """The runtime with a root and a bundle of this test's own; everything is removed after."""
    bundle = tmp_path / "bundle"
    shutil.copytree(rootfs, bundle / "rootfs", symlinks=True)
    made = Runtime(tmp_path / "state", bundle, f"/sampan-test-{os.getpid()}")
    try:
        yield made
    finally:
        for container_id in made.ids:
            made("delete", "--force", container_id)
        layout = cgroup.probe()
        cgroup.kill(layout, made.parent)
        cgroup.remove(layout, made.parent)
