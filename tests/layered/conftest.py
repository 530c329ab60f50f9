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


def assert_nothing_left() -> None:
    """Neither a layer nor a session's directory."""
    assert layers() == set()
    assert os.listdir(state_place() / "sessions") == []
