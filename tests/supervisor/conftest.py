"""Owns the places that a test's supervisor lies in, and sees to its end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandyard.supervisor.place import SupervisorPlace
from tests.supervisor.living import end_supervisor


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Runtime and state directories of the test's own; no supervisor is left in them."""
    for variable, name in (("XDG_RUNTIME_DIR", "run"), ("XDG_STATE_HOME", "state")):
        (tmp_path / name).mkdir(mode=0o700)
        monkeypatch.setenv(variable, str(tmp_path / name))
    yield tmp_path
    end_supervisor()


@pytest.fixture
def place(home: Path) -> Iterator[SupervisorPlace]:
    """The supervisor's directory."""
    with SupervisorPlace.open(os.environ) as opened:
        yield opened
