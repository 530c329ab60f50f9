"""A workspace in a directory of its own, and bait outside that nobody may touch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sandyard.workspace import WorkspaceRoot

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """The workspace's directory."""
    path = tmp_path / "ws"
    path.mkdir()
    return path


@pytest.fixture
def root(base: Path) -> Iterator[WorkspaceRoot]:
    """The workspace."""
    with WorkspaceRoot.open(base) as opened:
        yield opened


@pytest.fixture
def bait(tmp_path: Path) -> Iterator[Path]:
    """A directory outside, which must be as it was when the test ends."""
    path = tmp_path / "bait"
    path.mkdir()
    (path / "secret").write_bytes(b"secret")
    yield path
    assert [child.name for child in path.iterdir()] == ["secret"]
    assert (path / "secret").read_bytes() == b"secret"
