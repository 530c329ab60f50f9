"""A million files are saved and restored as a thousand are: exactly, and in the same memory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.faults.programs import run_python

GROWTH_KIB = 32 * 1024
"""What a save or a restore may take at any size."""


@pytest.mark.soak
@pytest.mark.once
@pytest.mark.timeout(3000)
def test_million_files(tmp_path: Path) -> None:
    told = run_python(["-m", "tests.snapshot.million", str(tmp_path)], tmp_path, timeout=2900)
    saved, again, verified, restored = json.loads(told)
    assert max(saved, again, verified, restored) < GROWTH_KIB, told
