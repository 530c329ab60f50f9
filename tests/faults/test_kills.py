"""The host is killed before any of its system calls: nothing that it started outlives it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.calls import play

POINTS = 8
"""Moments of each verb, evenly spread."""

KILLED = ("start", "run_plain", "run_longer", "write", "aclose", "delete")


@pytest.mark.parametrize("verb", KILLED)
def test_nothing_outlives_a_killed_host(verb: str, tmp_path: Path) -> None:
    found = play("kill", verb, tmp_path, POINTS)
    assert found["wrong"] == {}
    assert found["happened"] >= POINTS // 2


@pytest.mark.parametrize("verb", ["start", "delete"])
def test_next_start_sweeps_files(verb: str, tmp_path: Path) -> None:
    found = play("kill", verb, tmp_path, 3)
    assert found["files"] == []


@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("verb", ["create", *KILLED])
def test_killed_before_every_call(verb: str, tmp_path: Path) -> None:
    found = play("kill", verb, tmp_path, 0, timeout=1100)
    assert found["wrong"] == {}
    assert found["happened"] >= found["tried"] // 2
