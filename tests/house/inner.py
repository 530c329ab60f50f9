"""Runs pytest on a made-up test file, under this project's settings and conftest."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

HEADER = """
import asyncio, os, shutil, socket, subprocess, tempfile, threading, time
from concurrent.futures import ThreadPoolExecutor
import pytest
"""


def run_pytest(
    directory: Path, body: str, prefix: tuple[str, ...] = (), **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run one file with this body, with `prefix` before the command, and return its report."""
    (directory / "test_made_up.py").write_text(HEADER + body)
    settings = ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(directory)]
    # A leak is also warned about when it is collected; the warnings are not under test.
    options = ["-p", "tests.conftest", "-p", "no:cacheprovider", "-W", "default", "-q"]
    return subprocess.run(
        [*prefix, sys.executable, "-m", "pytest", *settings, *options, str(directory)],
        cwd=directory,
        env={
            **os.environ,
            "PYTHONPATH": f"{ROOT}{os.pathsep}{directory}",
            "SANDYARD_LEAK_GRACE": "0.2",
            **variables,
        },
        capture_output=True,
        text=True,
        check=False,
    )
