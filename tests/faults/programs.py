"""Runs programs that use the library, each in directories of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

__all__ = ["host_environment", "run_python"]


def host_environment(place: Path) -> Mapping[str, str]:
    """Variables for a program that finds our modules, and whose files are apart from others'."""
    for name, mode in (("tmp", 0o1777), ("run", 0o700), ("state", 0o700)):
        (place / name).mkdir(exist_ok=True)
        (place / name).chmod(mode)
    return {
        "TMPDIR": str(place / "tmp"),
        "XDG_RUNTIME_DIR": str(place / "run"),
        "XDG_STATE_HOME": str(place / "state"),
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
        "PYTHONPATH": ":".join(sys.path),
    }


_MAY_FORK = "ignore:This process:DeprecationWarning"
"""Python 3.12 and later warn of fork(2) in programs with threads; some hosts do it all the same."""


def run_python(words: list[str], place: Path, *, timeout: float = 50) -> str:
    """Run the interpreter and return what it wrote; it must end well and not complain."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-W", _MAY_FORK, *words],
        env=dict(host_environment(place)),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout
