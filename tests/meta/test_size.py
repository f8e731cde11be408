"""Modules stay small enough to be read: 500 lines a module, 50 lines of code a function."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "sampan"
MODULE_LINES = 500
FUNCTION_LINES = 50

#: What exceeds the limits today. The list only shrinks.
LONG_MODULES: set[str] = set()
LONG_FUNCTIONS = {
    "runtime/oci_exec.py:_spawn",
    "runtime/plan.py:plan",
    "runtime/process_plan.py:plan_process",
}


def modules() -> Iterator[tuple[str, str]]:
    for path in sorted(SOURCE.rglob("*.py")):
        yield str(path.relative_to(SOURCE)), path.read_text()


def functions(text: str) -> Iterator[tuple[str, int]]:
    """Name and number of lines, docstring left out, of every function of a module."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            docstring = (
                (first.end_lineno or 0) - first.lineno + 1
                if ast.get_docstring(node) is not None
                else 0
            )
            yield node.name, (node.end_lineno or 0) - node.lineno + 1 - docstring


def test_modules_are_short() -> None:
    long = {name for name, text in modules() if text.count("\n") > MODULE_LINES}
    assert long == LONG_MODULES, "shorten, or take off the list what is short now"


def test_functions_are_short() -> None:
    long = {
        f"{name}:{function}"
        for name, text in modules()
        for function, lines in functions(text)
        if lines > FUNCTION_LINES
    }
    assert long == LONG_FUNCTIONS, "shorten, or take off the list what is short now"
