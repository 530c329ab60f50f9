"""Files and functions stay small enough to be read at once, and each file says what it owns."""

from __future__ import annotations

import ast

import pytest

from tests.house.sources import PACKAGE, ROOT, Function, parse_sources, walk_definitions

FILE_LIMIT = 500
FUNCTION_LIMIT = 60

# Path -> why it may be longer. A reason that ends ("the rest comes out when …") beats a habit.
LONG_FILES: dict[str, str] = {
    "src/sandyard/errors.py": "the tree of errors is one page, read as a whole",
    "src/sandyard/limits.py": "every number with its reason, on one page",
    "src/sandyard/types.py": "the values that all rooms share, without any logic",
}


def measure_body(node: Function) -> int:
    """Lines of a function without its decorators and its docstring."""
    assert node.end_lineno is not None
    lines = node.end_lineno - node.lineno + 1
    match node.body[0]:
        case ast.Expr(value=ast.Constant(value=str()), lineno=first, end_lineno=int(last)):
            return lines - (last - first + 1)
    return lines


def test_functions_are_short() -> None:
    long = [
        f"{path}:{node.lineno} {node.name}: {measure_body(node)} lines"
        for path, node in walk_definitions()
        if isinstance(node, Function) and measure_body(node) > FUNCTION_LIMIT
    ]
    assert not long


def test_files_are_short() -> None:
    files = [*PACKAGE.rglob("*.py"), *ROOT.glob("native/*.[ch]")]
    lengths = {
        str(file.relative_to(ROOT)): len(file.read_text(encoding="utf-8").splitlines())
        for file in files
    }
    long = {path: length for path, length in lengths.items() if length > FILE_LIMIT}
    assert long.keys() == LONG_FILES.keys(), long


@pytest.mark.parametrize("path", parse_sources())
def test_file_says_what_it_owns(path: str) -> None:
    first, *_ = (ast.get_docstring(parse_sources()[path]) or "").splitlines() or [""]
    assert len(first.split()) > 1, "its docstring's first line is missing"
