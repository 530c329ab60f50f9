"""Other builds of sandyard-init behave the same: with sanitizers, and against musl."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.sources import ROOT

SANITIZED, MUSL = "sanitized", "musl"
TARGETS = {SANITIZED: ["sanitize"], MUSL: ["all", "CC=musl-gcc"]}
FILES = [f"tests/process/test_native_{name}.py" for name in ("start", "serve", "strict")]

QUICK = "bad_record or bad_path or bad_filter or malformed or unknown or well_formed or padding"
"""What goes through each branch of the decoders, and through a start and a command."""

NOT_SANITIZED = "test_large_refusals_use_no_memory"
"""It looks at what is mapped, and the sanitizer maps terabytes for its shadow."""


def build(kind: str, directory: Path) -> str:
    """Builds the program in another way; returns its path."""
    if kind == MUSL and shutil.which("musl-gcc") is None:
        pytest.skip("there is no musl-gcc (Debian: apt install musl-tools)")
    program = directory / "sandyard-init"
    command = ["make", "--silent", "-C", str(ROOT / "native"), *TARGETS[kind], f"OUT={program}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return str(program)


def run_tests(program: str, directory: Path, selection: str) -> None:
    """Runs the native tests with another program, in a run of their own."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
            *(f"--basetemp={directory / 'inner'}", "-k", selection, *FILES),
        ],
        cwd=ROOT,
        env={**os.environ, "SANDYARD_TEST_INIT": program},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    assert " passed" in done.stdout


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", TARGETS)
def test_other_build_decodes(tmp_path: Path, kind: str) -> None:
    run_tests(build(kind, tmp_path), tmp_path, QUICK)


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", TARGETS)
def test_other_build_holds(tmp_path: Path, kind: str) -> None:
    selection = f"not {NOT_SANITIZED}" if kind == SANITIZED else "test"
    run_tests(build(kind, tmp_path), tmp_path, selection)
