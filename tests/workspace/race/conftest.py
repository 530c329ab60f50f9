"""Owns what every race needs: the attacker, built once, and a place of its own for each test."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from sandyard.workspace import WorkspaceRoot
from tests.workspace.race.arena import SECRET, Arena, build_attacker, fill_outside

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def attacker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_attacker(tmp_path_factory.mktemp("attacker"))


@pytest.fixture
def arena(tmp_path: Path, attacker: Path) -> Arena:
    """A workspace, what lies outside, and a source to copy from."""
    (tmp_path / "ws").mkdir()
    (tmp_path / "exit").mkdir()
    (tmp_path / "exit/secret").write_bytes(SECRET)
    (tmp_path / "source/sub").mkdir(parents=True)
    (tmp_path / "source/secret").write_bytes(b"copied")
    (tmp_path / "source/sub/new").touch()
    outside, decoy = fill_outside(tmp_path, "outside"), fill_outside(tmp_path / "far", "outside")
    return Arena(tmp_path / "ws", outside, decoy, attacker)


@pytest.fixture
def raced(arena: Arena) -> Iterator[WorkspaceRoot]:
    """The workspace's root."""
    with WorkspaceRoot.open(arena.base) as root:
        yield root


@pytest.fixture
def outside_descriptor(arena: Arena) -> Iterator[int]:
    """A directory outside that this process has open, as programs have."""
    opened = os.open(arena.outside, os.O_PATH | os.O_DIRECTORY)
    yield opened
    os.close(opened)
