"""Owns what tests of sessions on layers share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sandyard import UnixLocalSandboxClient, UnixLocalSandboxSession
from sandyard.platform import state_directory


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A state directory of the test's own, so that what is left can be counted."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def client() -> UnixLocalSandboxClient:
    return UnixLocalSandboxClient()


async def said(session: UnixLocalSandboxSession, command: str) -> str:
    """What a command writes, errors included."""
    done = await session.exec(f"exec 2>&1; {command}", timeout=60)
    return done.stdout.decode()


def state_place() -> Path:
    """The user's state directory."""
    return Path(state_directory(os.environ))


def layers() -> set[str]:
    """The frozen layers that there are."""
    place = state_place() / "layers"
    return set(os.listdir(place)) if place.exists() else set()


def assert_nothing_left(*, saved: int = 0) -> None:
    """Neither a session's directory nor a layer, but those that are kept for so many snapshots."""
    place = state_place() / "saved-layers"
    kept = os.listdir(place) if place.exists() else []
    assert len(kept) == len(layers()) == saved
    for name in layers():
        assert {*os.listdir(state_place() / "layers" / name)} == {"tree", "users"}
        assert len(os.listdir(state_place() / "layers" / name / "users")) == 1
    assert os.listdir(state_place() / "sessions") == []
