"""dockerode (npm), as programs use it: ``dockerode.js`` beside this file, check by check."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.compat.clients.conftest import Fetch
from tests.compat.conftest import TIMEOUT, DockerCli, Sampand

VERSION = "5.0.1"
SCRIPT = Path(__file__).with_name("dockerode.js")
CHECKS = re.findall(r"^  async (\w+)\(\) \{", SCRIPT.read_text(), re.MULTILINE)


@pytest.fixture(scope="session")
def dockerode(fetched: Fetch) -> Path:
    """The package's directory; it depends on nothing that is compiled."""
    install = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund"]
    directory = fetched(f"dockerode-{VERSION}", [[*install, f"dockerode@{VERSION}"]])
    return directory / "node_modules/dockerode"


@pytest.mark.parametrize("check", CHECKS)
def test_dockerode(sampand: Sampand, docker: DockerCli, dockerode: Path, check: str) -> None:
    try:
        result = subprocess.run(
            ["node", str(SCRIPT), check],
            env={
                "PATH": "/usr/local/bin:/usr/bin:/bin",
                "DOCKERODE": str(dockerode),
                "SOCKET": sampand.host.removeprefix("unix://"),
            },
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    finally:
        left = docker.out("ps", "-aq").split()
        if left:
            docker("rm", "-f", "-v", *left)
    assert result.returncode == 0, result.stderr
    assert left == []
