"""Calls of the command line as a real program, and a look at what they leave."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterable
from pathlib import Path

SANDYARD = (sys.executable, "-P", "-m", "sandyard.cli")
PREPARED = (sys.executable, "-P", str(Path(__file__).with_name("prepared.py")))
RELAY = (sys.executable, "-IS", str(Path(__file__).with_name("relay.py")))
PATIENCE_S = 30

prepared: list[str] = []
"""Where a prepared Python listens, if one does: `tests/cli/conftest.py` starts it."""


def program(variables: Iterable[str]) -> list[str]:
    """The command line; an interpreter that is told something at its start must be a new one."""
    if not prepared or any(name.startswith("PYTHON") for name in variables):
        return [*SANDYARD]
    return [*RELAY, *prepared]


def call(
    *words: str, stdin: bytes = b"", cwd: Path | None = None, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run the command line to its end, in a fork of a prepared Python where there is one."""
    return subprocess.run(
        [*program(env or ()), *words],
        input=stdin,
        capture_output=True,
        cwd=cwd,
        env=None if env is None else os.environ | env,
        timeout=PATIENCE_S,
        check=False,
    )


def begin(
    *words: str, stdin: int = subprocess.DEVNULL, stdout: int = subprocess.PIPE
) -> subprocess.Popen[bytes]:
    """Start the command line."""
    return subprocess.Popen(
        [*SANDYARD, *words], stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, bufsize=0
    )


def make_token() -> str:
    """A word that no other process on the machine has among its arguments."""
    return f"token-{uuid.uuid4().hex}"


def find_token(token: str) -> list[str]:
    """The processes of the whole machine that have a word among their arguments."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            try:
                line = Path(f"/proc/{name}/cmdline").read_bytes()
            except OSError:
                continue
            if token.encode() in line:
                found.append(name)
    return found
