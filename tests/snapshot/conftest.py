"""A store of its own for each test, and trees to put into it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sandyard.snapshot.store import SnapshotStore

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def store(tmp_path: Path) -> SnapshotStore:
    """An empty store."""
    return SnapshotStore(tmp_path / "store")
