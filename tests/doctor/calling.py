"""Calls of the doctor as a real program, on this host or on a worse one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from tests.house.sources import ROOT

DOCTOR = (sys.executable, "-P", "-m", "sandyard.cli", "doctor")
DEGRADE = str(ROOT / "tests" / "doctor" / "degrade.py")
PATIENCE_S = 40


@dataclass(frozen=True)
class Told:
    """What the doctor said, and its exit code."""

    code: int
    report: dict[str, Any]
    errors: str

    def row(self, key: str) -> dict[str, Any]:
        """The one row of this name."""
        (row,) = [row for row in self.report["rows"] if row["key"] == key]
        return dict(row)

    def keys(self, state: str, *, required: bool | None = None) -> set[str]:
        """The names of the rows in a state."""
        return {
            row["key"]
            for row in self.report["rows"]
            if row["state"] == state and required in (None, row["required"])
        }

    def canaries(self) -> dict[str, str]:
        """The state of each attempt."""
        return {canary["key"]: canary["state"] for canary in self.report["canaries"]}


def ask(how: str = "") -> Told:
    """Let the doctor speak JSON, on a host made worse by ``how``."""
    path = [part for part in (os.environ.get("PYTHONPATH"), str(ROOT)) if part]
    worse = (sys.executable, DEGRADE, how) if how else ()
    done = subprocess.run(
        [*worse, *DOCTOR, "--json"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path)},
        timeout=PATIENCE_S,
        check=False,
    )
    errors = done.stderr.decode()
    assert done.stdout, errors
    return Told(done.returncode, json.loads(done.stdout), errors)
