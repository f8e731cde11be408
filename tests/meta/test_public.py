"""Every module says what it is for, and the runtime's layers import the standard library alone."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "sampan"
STANDARD_ONLY = ("model", "kernel", "content", "runtime")


def parsed() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(SOURCE.rglob("*.py")):
        yield str(path.relative_to(SOURCE)), ast.parse(path.read_text())


def test_every_module_has_a_docstring() -> None:
    assert [name for name, tree in parsed() if not ast.get_docstring(tree)] == []


def imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


def test_the_runtime_needs_only_the_standard_library() -> None:
    foreign = {
        (name, module)
        for name, tree in parsed()
        if name.startswith(tuple(f"{package}/" for package in STANDARD_ONLY))
        for module in imported(tree)
        if module not in sys.stdlib_module_names | {"sampan"}
    }
    assert foreign == set()
