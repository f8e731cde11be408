"""Help, completion and manual pages as text files; ``SAMPAN_GOLDEN=write`` writes them anew."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sampan.cli.completion import SCRIPTS, candidates, script
from sampan.cli.main import run
from sampan.cli.manual import pages
from sampan.cli.session import GlobalOptions, Session

HERE = Path(__file__).parent


def check(name: str, text: str) -> None:
    path = HERE / f"{name}.txt"
    if os.environ.get("SAMPAN_GOLDEN") == "write":
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize(
    "words",
    ["", "ps", "run", "container", "system service", "image build", "cp", "why"],
)
def test_help(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BytesIO()))
    monkeypatch.setattr("sampan.cli.terminal.width", lambda descriptor=1: 80)
    assert run("sampan", [*words.split(), "--help"], {}) == 0
    out.seek(0)
    check(f"help-{words.replace(' ', '-') or 'sampan'}", out.read())


@pytest.mark.parametrize("name", ["sampan", "sampan-container-rm", "sampan-why", "sampan-network"])
def test_manual_pages(name: str) -> None:
    check(f"man-{name}", pages("sampan", "0")[f"{name}.1"])


def test_every_manual_page_is_sound(tmp_path: Path) -> None:
    found = pages("sampan", "0")
    assert "sampan-container-ls.1" in found
    for name, page in found.items():
        assert page.startswith(".TH "), name
        assert ".SH NAME\n" in page, name
    if shutil.which("groff"):
        text = "".join(found.values())
        result = subprocess.run(
            ["groff", "-man", "-Tutf8", "-ww", "-z"], input=text, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert result.stderr == ""


@pytest.mark.parametrize("shell", sorted(SCRIPTS))
def test_completion_scripts(shell: str, tmp_path: Path) -> None:
    text = script(shell, "sampan")
    check(f"completion-{shell}", text)
    if shutil.which(shell):
        result = subprocess.run([shell, "-n"], input=text, capture_output=True, text=True,
                                check=False)  # fmt: skip
        assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["r"], ["registry", "rename", "restart", "rm", "rmi", "run"]),
        (["container", "un"], ["unmount", "unpause"]),
        (["system", "service", ""], ["install", "status"]),
        (["ps", "--no"], ["--no-trunc"]),
        (["-H", "unix:///nonexistent", "ps", "--la"], ["--last", "--latest"]),
        (["--deb"], ["--debug"]),
        (["run", "--env-file", ""], [":files"]),
        (["run", "--env-file="], [":files"]),
        (["run", "busybox", "x"], [":files"]),
        (["load", "-i", "x"], [":files"]),
        (["-H", "unix:///nonexistent", "stop", ""], []),
        (["context", "use", "d"], ["default"]),
        (["nonsense", ""], []),
    ],
)
def test_completion(words: list[str], found: list[str], tmp_path: Path) -> None:
    options = GlobalOptions(config=str(tmp_path), hosts=("unix:///nonexistent",))
    session = Session("sampan", {}, options)
    assert candidates(session, words) == found


def test_start_up_imports_little() -> None:
    """``version`` and ``ps`` may not load what costs more than they do."""
    code = (
        "import sys\nfrom sampan.cli.main import run\n"
        "run('sampan', [sys.argv[1]], {'DOCKER_HOST': 'unix:///nonexistent', 'HOME': '/'})\n"
        "heavy = {'argparse', 'http.client', 'email', 'asyncio', 'msgspec', 'aiohttp', 'ssl',\n"
        "         'dataclasses', 'subprocess', 'pathlib', 'urllib.parse', 'datetime', 'tarfile',\n"
        "         'sampan.cli.gotemplate', 'hashlib', 'csv', 'inspect', 'logging'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    for command in ("version", "ps"):
        result = subprocess.run(
            [sys.executable, "-I", "-c", code, command], capture_output=True, text=True, check=True
        )
        assert result.stderr.splitlines()[-1] == "[]", command
