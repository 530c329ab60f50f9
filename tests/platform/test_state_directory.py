"""Where the state directory is: the variable, the home, or a place of our own; nothing is made."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sandyard.platform import state_directory


@pytest.fixture
def home(tmp_path: Path) -> Path:
    path = tmp_path / "home"
    path.mkdir()
    return path


@pytest.fixture
def fallback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The place of our own, in a directory for temporary files that is reached by a symlink."""
    (tmp_path / "temporary").mkdir()
    (tmp_path / "link").symlink_to("temporary")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "link"))
    return str(tmp_path / "temporary" / f"sandyard-{os.geteuid()}")


def test_variable_comes_first(home: Path) -> None:
    chosen = {"XDG_STATE_HOME": "/nowhere/at/all", "HOME": str(home)}
    assert state_directory(chosen) == "/nowhere/at/all/sandyard"
    assert state_directory({"XDG_STATE_HOME": "/a//b/../c/"}) == "/a/c/sandyard"


@pytest.mark.parametrize("value", ["", "relative/path", "./x", "~/x", "/nul\0"])
def test_impossible_variable_is_ignored(home: Path, value: str) -> None:
    found = state_directory({"XDG_STATE_HOME": value, "HOME": str(home)})
    assert found == f"{home}/.local/state/sandyard"


def test_nothing_is_made(home: Path) -> None:
    state_directory({"HOME": str(home)})
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("value", [None, "", "relative", "/nowhere/at/all", "/etc/passwd"])
def test_missing_home(fallback: str, value: str | None) -> None:
    assert state_directory({} if value is None else {"HOME": value}) == fallback
    assert not os.path.lexists(fallback)


@pytest.mark.root
def test_home_of_somebody_else(home: Path, fallback: str) -> None:
    os.chown(home, 12345, 12345)
    assert state_directory({"HOME": str(home)}) == fallback


@pytest.mark.user
def test_home_that_is_read_only(home: Path, fallback: str) -> None:
    home.chmod(0o500)
    assert state_directory({"HOME": str(home)}) == fallback
    home.chmod(0o700)
    (home / ".local").mkdir()
    (home / ".local").chmod(0o500)
    assert state_directory({"HOME": str(home)}) == fallback
    (home / ".local").chmod(0o700)


@pytest.mark.user
def test_home_of_root(fallback: str) -> None:
    assert state_directory({"HOME": "/"}) == fallback


@pytest.mark.parametrize("name", [".local", ".local/state"])
def test_file_in_the_way(home: Path, fallback: str, name: str) -> None:
    (home / name).parent.mkdir(exist_ok=True)
    (home / name).touch()
    assert state_directory({"HOME": str(home)}) == fallback


def test_what_is_there_is_not_avoided(home: Path) -> None:
    # Whoever uses it says what is wrong with it; another place would hide that.
    (home / ".local" / "state").mkdir(parents=True)
    (home / ".local" / "state" / "sandyard").symlink_to("/nowhere")
    assert state_directory({"HOME": str(home)}) == f"{home}/.local/state/sandyard"


def test_home_behind_a_symlink(home: Path, tmp_path: Path) -> None:
    (tmp_path / "shortcut").symlink_to(home)
    found = state_directory({"HOME": str(tmp_path / "shortcut")})
    assert found == f"{tmp_path}/shortcut/.local/state/sandyard"
