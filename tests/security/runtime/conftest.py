"""A laboratory of attacks: hostile bundles run by sampan-runtime, or by it without a guard.

Every attack is one function that says whether it succeeded. Tests run it twice: with the product,
where it must fail, and without the guard it is stopped by, where it must succeed. The attackers are
Python programs: the host's interpreter is shown read-only inside.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sampan.runtime import seccomp_profile
from tests.kernel.oci.conftest import PROGRAM, Config, Result, Runtime, rootfs, runtime
from tests.security.runtime.mutants import Cut, mutant

__all__ = ["rootfs", "runtime"]

PYTHON = os.path.realpath(sys._base_executable)  # type: ignore[attr-defined]
_GOLDEN = Path(__file__).parents[2] / "golden" / "engine" / "plain.json"
#: Where an interpreter and its libraries are.
_HOST = dict.fromkeys(("/usr", "/lib", "/lib64", sys.base_prefix))

GUARDED, MUTANT = "guarded", "mutant"
#: Runs a test with the product and with the mutant.
both = pytest.mark.parametrize("guard", [GUARDED, MUTANT])


def python(code: str) -> list[str]:
    """Arguments that run ``code`` inside."""
    return [PYTHON, "-IS", "-c", code]


def show_python(config: Config) -> None:
    """Let ``config``'s container see the interpreter."""
    config["mounts"] += [
        {"destination": path, "type": "bind", "source": path, "options": ["rbind", "ro"]}
        for path in _HOST
        if os.path.isdir(path)
    ]


def engine_config(runtime: Runtime, *args: str) -> Config:
    """What the engine gives an ordinary container: rights, filter, masks, mounts."""
    config: Config = json.loads(_GOLDEN.read_text())
    config["mounts"] = [
        mount for mount in config["mounts"] if mount["destination"] not in ("/data", "/etc/hosts")
    ]
    config["process"].update(args=list(args), cwd="/", env=["PATH=/bin:/usr/bin"])
    config["linux"]["cgroupsPath"] = f"{runtime.parent}/c{len(runtime.ids)}"
    held = config["process"]["capabilities"]["bounding"]
    config["linux"]["seccomp"] = seccomp_profile.resolve(
        seccomp_profile.load_default(),
        machine=os.uname().machine,
        kernel=(5, 12),
        capabilities=held,
    )
    show_python(config)
    return config


@dataclass
class Lab:
    """Makes runtimes, with and without guards, over one bundle."""

    runtime: Runtime
    directory: Path

    def __call__(self, guard: str, *cuts: Cut) -> Runtime:
        """The product for ``guarded``; else one without what ``cuts`` take out."""
        if guard != GUARDED:
            assert cuts
            self.runtime.program = mutant(self.directory, *cuts)
        return self.runtime

    @property
    def root(self) -> Path:
        """The root file system, which is the attacker's."""
        return self.runtime.bundle / "rootfs"


def run(runtime: Runtime, config: Config) -> Result:
    """Run a container to its end."""
    container_id = f"c{len(runtime.ids)}"
    runtime.ids.append(container_id)
    runtime.write(config)
    return runtime("run", "--bundle", runtime.bundle, container_id)


def start(runtime: Runtime, config: Config) -> str:
    """Start a container that goes on; its id."""
    container_id = f"c{len(runtime.ids)}"
    runtime.ids.append(container_id)
    runtime.write(config)
    made = runtime.create(container_id)
    assert made.returncode == 0, made.stdout
    runtime.ok("start", container_id)
    return container_id


@pytest.fixture
def lab(runtime: Runtime, tmp_path: Path) -> Iterator[Lab]:
    yield Lab(runtime, tmp_path / "mutant")
    runtime.program = PROGRAM  # which cleans up what the mutant left


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory of the host that no container has a right to."""
    path = tmp_path / "outside"
    path.mkdir()
    (path / "secret").write_text("secret")
    return path
