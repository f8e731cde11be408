"""What tests of builds in Python share: an embedded engine, a context, and a recipe on it."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import sampan
from sampan import Recipe, from_
from tests.engines import BUSYBOX

_GROUP = f"sampan-python-{os.getpid()}"


def configuration(root: Path) -> sampan.EngineConfig:
    """An engine below ``root``, without a network."""
    return sampan.EngineConfig(
        data_root=root / "data",
        exec_root=root / "exec",
        cgroup_parent=f"/{_GROUP}",
        bridge_enabled=False,
    )


@contextlib.contextmanager
def embedded(root: Path) -> Iterator[sampan.Engine]:
    """An engine below ``root``; its cgroups go with it."""
    with sampan.Engine(configuration(root)) as engine:
        yield engine
    remove_cgroups()


def remove_cgroups() -> None:
    """Remove the parent of the cgroups of such an engine, which has ended."""
    for group in Path("/sys/fs/cgroup").glob(f"*/{_GROUP}"):
        group.rmdir()


def made_context(root: Path) -> Path:
    """A context with a shell, a file whose name needs care, and one that is not to be seen."""
    context = root / "context"
    (context / "bin").mkdir(parents=True)
    shutil.copy(BUSYBOX, context / "bin" / "busybox")
    (context / "bin" / "sh").symlink_to("busybox")
    (context / "a b").write_text("spaced\n")
    (context / "hidden").write_text("hidden\n")
    (context / ".dockerignore").write_text("hidden\n")
    return context


def base() -> Recipe:
    """The shell of :func:`made_context` alone."""
    return from_("scratch").copy("bin", "/bin")
