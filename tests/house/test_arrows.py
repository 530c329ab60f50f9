"""Arrows point down: the layers of pyproject.toml, and the package's own front door."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

from tests.house.sources import ROOT, parse_sources

# Borders are users of the package and may come in by the front door, `from sandyard import …`.
BORDERS = ("cli", "fleet", "integrations", "server", "testing")


def test_layers_hold() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [lint, "--no-logo", "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_only_borders_use_front_door() -> None:
    inside = {
        f"{path}:{node.lineno}"
        for path, tree in parse_sources().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "sandyard" and node.level == 0
        if Path(path).parts[1].removesuffix(".py") not in BORDERS
    }
    assert not inside, "import the module that defines the name"
