"""Grants: what a policy names, looked up on the host."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from sandyard.errors import PolicyError
from sandyard.platform import Grant, resolve_denied, resolve_grants
from sandyard.policy import Policy


def inode_of(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


def test_files_and_directories(tmp_path: Path) -> None:
    tmp_path = tmp_path.resolve()
    (tmp_path / "dir").mkdir()
    (tmp_path / "file").touch()
    policy = Policy(reads=(f"{tmp_path}/dir",), writes=(f"{tmp_path}/file",))
    assert resolve_grants(policy) == (
        Grant(f"{tmp_path}/dir", f"{tmp_path}/dir", False, inode_of(tmp_path / "dir")),
        Grant(f"{tmp_path}/file", f"{tmp_path}/file", True, inode_of(tmp_path / "file")),
    )


def test_symlinks_are_followed(tmp_path: Path) -> None:
    tmp_path = tmp_path.resolve()
    (tmp_path / "real/x").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    (found,) = resolve_grants(Policy(reads=(f"{tmp_path}/link/x",)))
    assert found == Grant(
        f"{tmp_path}/link/x", f"{tmp_path}/real/x", False, inode_of(tmp_path / "real/x")
    )


def test_writing_wins(tmp_path: Path) -> None:
    path = str(tmp_path)
    (found,) = resolve_grants(Policy(reads=(path,), writes=(path,)))
    assert found.writable


def test_no_grants() -> None:
    assert resolve_grants(Policy()) == ()


@pytest.mark.parametrize("field", ["reads", "writes"])
def test_missing_paths_are_refused(tmp_path: Path, field: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("gone")
    (tmp_path / "file").touch()
    for name in ("gone", "loop", "dangling", "file/x", "x" * 300):
        with pytest.raises(PolicyError) as caught:
            resolve_grants(Policy(**{field: (f"{tmp_path}/{name}",)}))  # type: ignore[arg-type]
        assert caught.value.context["field"] == field
        assert isinstance(caught.value.__cause__, OSError)


def test_sockets_devices_and_pipes_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path has at most 107 bytes
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        for path, kind in (
            (f"{tmp_path}/pipe", "a named pipe"),
            (f"{tmp_path}/socket", "a Unix socket"),
            ("/dev/null", "a device"),
        ):
            with pytest.raises(PolicyError, match=kind):
                resolve_grants(Policy(reads=(path,)))


def test_denied_paths_are_real(tmp_path: Path) -> None:
    tmp_path = tmp_path.resolve()
    (tmp_path / "real").mkdir()
    (tmp_path / "real/key").touch()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "alias").symlink_to("real/key")
    names = ("link/key", "alias", "gone", "real")
    policy = Policy(deny=tuple(f"{tmp_path}/{name}" for name in names))
    found = resolve_denied(policy)
    assert found == tuple(f"{tmp_path}/{name}" for name in ("real/key", "gone", "real"))


def test_hidden_denied_paths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="can't be looked up") as caught:
        resolve_denied(Policy(deny=(f"{tmp_path}/{'x' * 300}",)))
    assert caught.value.context["field"] == "deny"
