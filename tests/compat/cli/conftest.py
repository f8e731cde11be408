"""sampan's command line beside docker's, both on the daemon under test.

``both(...)`` runs a command with either and asserts that standard output, standard error and exit
status are the same. sampan is started under the name ``docker``, so even the program's name in
messages has to match. Ages may tick between the two runs: a difference is looked at twice.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.compat.conftest import CLI, DockerCli, Result, Sampand


@pytest.fixture(scope="session")
def cli_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which ``docker`` is sampan's command line."""
    directory = tmp_path_factory.mktemp("bin")
    program = directory / "docker"
    program.write_text(
        f"#!{sys.executable} -I\nimport sys\nfrom sampan.cli.main import main\n"
        f"sys.argv[0] = {str(program)!r}\nmain()\n"
    )
    program.chmod(0o755)
    return directory


@pytest.fixture
def sampan(sampand: Sampand, cli_directory: Path) -> DockerCli:
    """sampan's command line."""
    return DockerCli(str(cli_directory / "docker"), sampand.host, sampand.root / "cli")


class Both:
    """Runs a command with both command lines and compares."""

    def __init__(self, docker: DockerCli, sampan: DockerCli) -> None:
        self.docker = docker
        self.sampan = sampan

    def __call__(self, *arguments: str, input: str = "", without: str = "") -> Result:
        """The result both gave, lines of complaint that hold ``without`` set aside."""
        for _attempt in range(8):
            expected = self.docker(*arguments, input=input, status=None)
            actual = self.sampan(*arguments, input=input, status=None)
            if without:
                expected.stderr = _left(expected.stderr, without)
            if shown(expected) == shown(actual):
                break
        assert shown(actual) == shown(expected), arguments
        return actual


def _left(text: str, without: str) -> str:
    return "".join(line for line in text.splitlines(keepends=True) if without not in line)


def shown(result: Result) -> tuple[int, str, str]:
    return result.returncode, result.stdout, result.stderr


@pytest.fixture
def both(sampand: Sampand, sampan: DockerCli) -> Both:
    """Both command lines."""
    return Both(DockerCli(CLI, sampand.host, sampand.root / "cli"), sampan)
