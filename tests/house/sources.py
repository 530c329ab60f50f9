"""The package's source files, parsed once for the tests that read them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "sandyard"

Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def parse_sources() -> dict[str, ast.Module]:
    """Each file of the package, by its path below src/."""
    files = sorted(PACKAGE.rglob("*.py"))
    return {
        str(file.relative_to(PACKAGE.parent)): ast.parse(file.read_text(encoding="utf-8"), file)
        for file in files
    }


def walk_definitions() -> Iterator[tuple[str, Function | ast.ClassDef]]:
    """Each class, function and method with its file."""
    for path, tree in parse_sources().items():
        for node in ast.walk(tree):
            if isinstance(node, Function | ast.ClassDef):
                yield path, node
