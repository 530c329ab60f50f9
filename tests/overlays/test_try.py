"""``sandyard run --try``: a command works on a directory that stays, and what it changed is told."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.overlays.conftest import contents

TRY = ("run", "--try")


def sandyard(base: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sandyard.cli", *words],
        cwd=base,
        check=False,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )


def test_changes_are_told_and_applied(base: Path) -> None:
    before = contents(base)
    work = ("--", "sh", "-c", "rm tool; echo x > fresh; cat notes")
    tried = sandyard(base, *TRY, *work)
    assert (tried.returncode, tried.stdout) == (0, "one\ntwo\nthree\n")
    assert tried.stderr.splitlines()[:2] == ["sandyard: D tool", "sandyard: A fresh"]
    assert "not applied" in tried.stderr
    failed = sandyard(base, *TRY, "--apply", "--", "sh", "-c", "rm tool; exit 3")
    assert failed.returncode == 3
    assert contents(base) == before
    told = sandyard(base, *TRY, "--apply", "--json", "--workspace", ".", *work)
    changes = json.loads(told.stdout)["changes"]
    assert (changes["applied"], [each["path"] for each in changes["entries"]]) == (
        True,
        ["tool", "fresh"],
    )
    assert not (base / "tool").exists()
    assert (base / "fresh").read_text() == "x\n"


def test_refusals_are_told(base: Path) -> None:
    planted = sandyard(base, *TRY, "--apply", "--", "sh", "-c", "echo x > .envrc")
    assert planted.returncode == 125
    assert ".envrc" in planted.stderr
    assert not (base / ".envrc").exists()
    assert sandyard(base, *TRY, "--copy", ".", "--", "true").returncode == 125
    assert sandyard(base, "run", "--apply", "--", "true").returncode == 125
