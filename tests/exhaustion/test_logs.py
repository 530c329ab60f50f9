"""No room for logs: the process goes on, its exit is told, and what is missing is counted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.exhaustion.programs import run_program


@pytest.mark.root
@pytest.mark.parametrize(("kind", "code"), [("bytes", 0), ("files", 3)])
def test_full_log_disk(tmp_path: Path, kind: str, code: int) -> None:
    place, temporary = tmp_path / "mount", tmp_path / "temporary"
    place.mkdir()
    temporary.mkdir()
    before = ("unshare", "--mount", "--propagation", "private")
    lines = run_program("full_logs", str(place), kind, temporary=temporary, before=before)
    exited, failure, lost, counted, again, on, clean, left = lines
    assert exited == f"exit {code}"
    assert failure == os.strerror(28)
    assert (lost, counted, again, on, clean) == ("lost", "counted", "again", "on", "clean")
    assert left == "nothing left"
