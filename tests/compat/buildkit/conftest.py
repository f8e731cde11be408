"""The real docker buildx, built from its Go module, and a BuildKit client in Python."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.compat.clients.conftest import Fetch, fetched  # noqa: F401
from tests.compat.conftest import CLI, TIMEOUT, DockerCli, Result, Sampand

VERSION = "v0.38.2"


@dataclass(frozen=True)
class Buildx(DockerCli):
    """``docker`` with the buildx plugin; ``docker build`` is buildx's then."""

    @property
    def environment(self) -> dict[str, str]:
        own = str(self.config / "buildx")
        return {**super().environment, "BUILDX_CONFIG": own, "DOCKER_BUILDKIT": "1"}

    def build(
        self, context: Path, *arguments: str, input: str = "", status: int | None = 0
    ) -> Result:
        """``docker build`` with plain progress."""
        words = ("build", "--progress=plain", *arguments, str(context))
        return self(*words, input=input, status=status, timeout=TIMEOUT)

    def statuses(self, context: Path, *arguments: str) -> dict[str, int]:
        """Bytes that each transfer of a build came to, by its name."""
        done = self("build", "--progress=rawjson", *arguments, str(context))
        found: dict[str, int] = {}
        for line in done.stderr.splitlines():
            for status in json.loads(line).get("statuses") or []:
                found[status["name"]] = status["current"]
        return found


@pytest.fixture(scope="session")
def plugin(fetched: Fetch) -> Path:  # noqa: F811
    """docker-buildx."""
    module = "github.com/docker/buildx/cmd/buildx"
    flags = f"-ldflags=-s -w -X github.com/docker/buildx/version.Version={VERSION}"
    directory = fetched(
        f"buildx-{VERSION}",
        [
            ["go", "mod", "init", "buildx.test"],
            ["go", "get", f"{module}@{VERSION}"],
            ["go", "build", flags, "-o", "docker-buildx", module],
        ],
    )
    return directory / "docker-buildx"


@pytest.fixture
def buildx(plugin: Path, sampand: Sampand, tmp_path: Path) -> Buildx:
    """The docker command line with buildx in it, on the daemon under test."""
    config = tmp_path / "cli"
    (config / "cli-plugins").mkdir(parents=True)
    (config / "cli-plugins" / "docker-buildx").symlink_to(plugin)
    return Buildx(CLI, sampand.host, config)


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """An empty build context."""
    directory = tmp_path / "context"
    directory.mkdir()
    return directory
