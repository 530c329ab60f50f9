"""Owns host programs of their own: a shortage must not befall the program that runs the tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run_program(
    module: str,
    *arguments: str,
    temporary: Path,
    before: Sequence[str] = (),
    within: float = 50,
) -> list[str]:
    """Run a module of this directory as a program; returns what it tells, one string a line.

    Args:
        module: its name.
        arguments: of the program.
        temporary: where its private workspaces lie.
        before: words before the interpreter, such as ``unshare --mount``.
        within: seconds in which it must have ended: what hangs fails here.
    """
    done = subprocess.run(
        [*before, sys.executable, "-m", f"tests.exhaustion.{module}", *arguments],
        cwd=ROOT,
        env={
            "PATH": os.environ["PATH"],
            "TMPDIR": str(temporary),
            "XDG_STATE_HOME": os.environ["XDG_STATE_HOME"],  # the test run's own
            "PYTHONPATH": ":".join([str(ROOT), *sys.path]),
            # glibc reserves 64 MiB for each thread: room beside every limit on addresses.
            "MALLOC_ARENA_MAX": "1",
        },
        capture_output=True,
        text=True,
        timeout=within,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def tell(said: str) -> None:
    """Tell the test one string."""
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()


def describe(error: BaseException) -> str:
    """An error in few words: its class, and what was exhausted or which reason it names."""
    context = getattr(error, "context", {})
    fact = context.get("limit") or context.get("reason") or context.get("step") or ""
    return f"{type(error).__name__} {fact}".strip()
