"""Copies of the runtime with a guard cut out, so that an attack is known to test that guard.

The product has no switch for this: the code is copied and its text changed. A cut whose text is
not there exactly once fails, which says that the guard has moved and the test must follow.
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import sampan.runtime

SOURCE = Path(sampan.runtime.__file__).parents[1]
_PARTS = ("runtime", "kernel", "model", "errors.py", "__init__.py")
_PROGRAM = """#!{interpreter} -IS
import sys
sys.path.insert(0, {tree!r})
package = type(sys)("sampan")
package.__path__ = [{tree!r} + "/sampan"]
sys.modules["sampan"] = package
from sampan.runtime.oci_cli import main
sys.exit(main())
"""


@dataclass(frozen=True)
class Cut:
    """In ``file`` of the package, ``old`` becomes ``new``."""

    file: str
    old: str
    new: str


def copy_code(directory: Path, *cuts: Cut) -> Path:
    """The runtime's code below ``directory``, without the guards; returns where to import from."""
    tree = directory / "code"
    for part in _PARTS:
        source, target = SOURCE / part, tree / "sampan" / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copy2(source, target)
    for cut in cuts:
        path = tree / "sampan" / cut.file
        text = path.read_text()
        assert text.count(cut.old) == 1, f"{cut.file} has no single {cut.old!r}: guard moved?"
        path.write_text(text.replace(cut.old, cut.new))
    return tree


def mutant(directory: Path, *cuts: Cut, interpreter: str = "") -> Path:
    """A ``sampan-runtime`` of such a copy."""
    tree = copy_code(directory, *cuts)
    program = directory / "mutant"
    program.write_text(
        _PROGRAM.format(interpreter=interpreter or sys._base_executable, tree=str(tree))  # type: ignore[attr-defined]
    )
    program.chmod(0o755)
    return program
