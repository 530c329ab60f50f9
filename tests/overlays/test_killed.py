"""Applies that are killed before any of their system calls: all is done, or nothing is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.faults.programs import run_python
from tests.overlays.killing import Found, Order


def kill_applies(tmp_path: Path, seeds: range, points: int, timeout: float) -> Found:
    order: Order = {"directory": str(tmp_path), "seeds": [*seeds], "points": points}
    words = ["-m", "tests.overlays.killing", json.dumps(order)]
    found: Found | None = json.loads(run_python(words, tmp_path, timeout=timeout))
    if found is None:
        pytest.skip("ptrace(2) is refused here, or this machine's numbers are not known")
    assert found["wrong"] == {}
    assert found["done"] < found["killed"]
    return found


@pytest.mark.once
def test_killed_apply_is_whole(tmp_path: Path) -> None:
    assert kill_applies(tmp_path, range(2), 4, 50)["killed"] == 8


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_killed_before_every_call(tmp_path: Path) -> None:
    found = kill_applies(tmp_path, range(2), 0, 1100)
    assert found["done"] > 0


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", range(100, 200, 5))
def test_killed_at_any_moment(tmp_path: Path, first: int) -> None:
    assert kill_applies(tmp_path, range(first, first + 5), 10, 550)["killed"] == 50
