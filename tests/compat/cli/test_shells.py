"""Completion in the real shells, and the service's units as systemd reads them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_BASH = """
source completion
COMP_WORDS=(sampan conta) COMP_CWORD=1
_sampan sampan conta sampan
printf '%s\\n' "${COMPREPLY[@]}"
"""
_FISH = "source completion; complete -C 'sampan conta'"
# zsh completes at a terminal only, so one is made for it.
_ZSH = """
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell "PS1=; autoload -U compinit; compinit -u -D; source completion; echo rea''dy"
zpty -r -m shell ready '*ready*'
zpty -w -n shell $'sampan conta\\t'
zpty -r -m shell found '*sampan container*' && print -r -- container
"""


@pytest.mark.parametrize(
    ("shell", "script"), [("bash", _BASH), ("zsh", _ZSH), ("fish", _FISH)], ids=lambda v: v[:4]
)
def test_a_shell_completes(shell: str, script: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}")
    programs = Path(sys.executable).parent
    environment = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "TERM": "dumb",
    }
    with open(tmp_path / "completion", "wb") as file:
        subprocess.run([programs / "sampan", "completion", shell], stdout=file, check=True)
    words = [shell, *(["-f"] if shell == "zsh" else []), "-c", script]
    done = subprocess.run(
        words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert "container" in done.stdout.split(), (done.stdout, done.stderr)


def test_systemd_understands_the_units(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    program = Path(sys.executable).parent / "sampan"
    command = [program, "system", "service", "install", "--dry-run"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    units = [part.partition("\n") for part in text.split("# ")[1:]]
    assert sorted(name for name, _, _ in units) == ["sampan.service", "sampan.socket"]
    for name, _, content in units:
        (tmp_path / name).write_text(content)
    done = subprocess.run(
        ["systemd-analyze", "verify", *(tmp_path / name for name, _, _ in units)],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
