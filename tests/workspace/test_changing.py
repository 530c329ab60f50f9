"""append, chmod, mv and copy: what they do, what they refuse, and that a refusal changes nothing."""

from __future__ import annotations

import os
import socket
import stat
import threading
from contextlib import closing
from pathlib import Path

import pytest

from sandyard.errors import (
    ArgumentError,
    ExecNonZeroError,
    InvalidManifestPathError,
    SandboxError,
    WorkspaceArchiveWriteError,
    WorkspaceReadNotFoundError,
    WorkspaceWriteTypeError,
)
from sandyard.types import Permissions
from sandyard.workspace import WorkspaceRoot
from sandyard.workspace.changing import change_mode, copy, move
from sandyard.workspace.files import append, read_range


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def reason(error: SandboxError) -> object:
    return error.context["reason"]


@pytest.fixture(autouse=True)
def files(base: Path) -> None:
    (base / "d/empty").mkdir(parents=True)
    (base / "d/f").write_bytes(b"0123456789")
    (base / "d/f").chmod(0o640)
    os.utime(base / "d/f", ns=(1_000, 2_000_000_001))
    (base / "d/link").symlink_to("f")
    (base / "d/nowhere").symlink_to("/outside")
    (base / "other").write_bytes(b"other")


# --- ranges and append ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "size", "expected"),
    [
        (0, 3, b"012"),
        (4, 100, b"456789"),
        (10, 5, b""),
        (10**15, 5, b""),
        (-3, 2, b"78"),
        (-3, 100, b"789"),
        (-100, 2, b"01"),
        (2, 0, b""),
    ],
)
def test_ranges(root: WorkspaceRoot, offset: int, size: int, expected: bytes) -> None:
    assert read_range(root, "d/f", offset, size) == expected


def test_appending(root: WorkspaceRoot, base: Path) -> None:
    inode = (base / "d/f").stat().st_ino
    append(root, "d/link", b"ab")
    append(root, "d/f", memoryview(b"cd"))
    append(root, "new/deep/file", b"x")
    append(root, "new/deep/file", b"y")
    append(root, "new/second", b"z")
    assert (base / "d/f").read_bytes() == b"0123456789abcd"
    assert ((base / "d/f").stat().st_ino, mode(base / "d/f")) == (inode, 0o640)
    assert (base / "new/deep/file").read_bytes() == b"xy"
    assert (base / "new/second").read_bytes() == b"z"


def test_appending_leaves_other_names(root: WorkspaceRoot, base: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"kept")
    os.link(tmp_path / "elsewhere", base / "linked")
    append(root, "linked", b"more")
    assert (tmp_path / "elsewhere").read_bytes() == b"kept"
    assert (base / "linked").read_bytes() == b"keptmore"


def test_appending_at_once_loses_nothing(root: WorkspaceRoot, base: Path) -> None:
    def work(number: int) -> None:
        for _ in range(50):
            append(root, "log", b"%d" % number * 100 + b"\n")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = (base / "log").read_bytes().splitlines()
    assert sorted(lines) == sorted(b"%d" % number * 100 for number in range(4) for _ in range(50))


def test_appending_is_refused(root: WorkspaceRoot, base: Path) -> None:
    os.mkfifo(base / "pipe")
    for path in ("d", "pipe", "other/x", "."):
        with pytest.raises(WorkspaceArchiveWriteError):
            append(root, path, b"x")
    with pytest.raises(WorkspaceWriteTypeError):
        append(root, "other", "text")  # type: ignore[arg-type]
    with pytest.raises(InvalidManifestPathError):
        append(root, "d/nowhere", b"x")


# --- chmod ------------------------------------------------------------------------------------


def test_modes(root: WorkspaceRoot, base: Path) -> None:
    change_mode(root, "d/link", 0o600)
    change_mode(root, "d/empty", Permissions(owner=7, group=5))
    assert (mode(base / "d/f"), mode(base / "d/empty")) == (0o600, 0o750)
    change_mode(root, ".", 0o711)
    assert mode(base) == 0o711


@pytest.mark.parametrize("wrong", [0o4755, 0o2755, 0o1777, -1, 1 << 40, "755", True, None, 7.0])
def test_modes_that_are_none(root: WorkspaceRoot, base: Path, wrong: int) -> None:
    with pytest.raises(ArgumentError):
        change_mode(root, "d/f", wrong)
    assert mode(base / "d/f") == 0o640


def test_mode_of_nothing(root: WorkspaceRoot) -> None:
    with pytest.raises(WorkspaceArchiveWriteError) as caught:
        change_mode(root, "missing", 0o600)
    assert reason(caught.value) == "not_found"


# --- mv ---------------------------------------------------------------------------------------


def test_moving(root: WorkspaceRoot, base: Path) -> None:
    inode = (base / "d/f").stat().st_ino
    move(root, "d/f", "d/g")
    move(root, "d/link", "link")
    move(root, "d/nowhere", "other")  # replaces a file by a link
    move(root, "d", "renamed")
    assert ((base / "renamed/g").stat().st_ino, mode(base / "renamed/g")) == (inode, 0o640)
    assert os.readlink(base / "link") == "f"
    assert os.readlink(base / "other") == "/outside"
    assert sorted(os.listdir(base)) == ["link", "other", "renamed"]
    move(root, "link", "link")
    assert os.readlink(base / "link") == "f"


@pytest.mark.parametrize(
    ("source", "destination", "why"),
    [
        ("missing", "x", "not_found"),
        ("other", "d", "is_a_directory"),
        ("d", "d/empty", "is_a_directory"),
        ("d", "d/empty/x", "into_itself"),
        ("d", "other", "not_a_directory"),
        ("other", "missing/x", "not_found"),
        ("other", "d/f/x", "not_a_directory"),
        (".", "x", "workspace_root"),
        ("other", ".", "workspace_root"),
        ("d/empty/..", "x", "workspace_root"),
    ],
)
def test_moving_is_refused(
    root: WorkspaceRoot, base: Path, source: str, destination: str, why: str
) -> None:
    before = sorted(base.rglob("*"))
    with pytest.raises(ExecNonZeroError) as caught:
        move(root, source, destination)
    assert reason(caught.value) == why
    assert sorted(base.rglob("*")) == before


@pytest.mark.parametrize(
    ("source", "destination"), [("../x", "y"), ("other", "../y"), ("d/nowhere/x", "y")]
)
def test_moving_out_is_refused(root: WorkspaceRoot, source: str, destination: str) -> None:
    with pytest.raises(InvalidManifestPathError):
        move(root, source, destination)


# --- copy -------------------------------------------------------------------------------------


def test_copying_a_file(root: WorkspaceRoot, base: Path) -> None:
    (base / "large").write_bytes(os.urandom(1_500_000))
    assert copy(root, "large", "made/large") == ()
    assert (base / "made/large").read_bytes() == (base / "large").read_bytes()
    copy(root, "d/link", "other")
    assert not (base / "other").is_symlink()
    assert ((base / "other").read_bytes(), mode(base / "other")) == (b"0123456789", 0o640)
    assert (base / "other").stat().st_mtime_ns == 2_000_000_001


def test_copying_a_tree(root: WorkspaceRoot, base: Path) -> None:
    os.mkfifo(base / "d/pipe")
    with closing(socket.socket(socket.AF_UNIX)) as server:
        server.bind(str(base / "d/socket"))
    (base / "d/empty").chmod(0o500)
    os.utime(base / "d", ns=(1, 3_000_000_003))
    skipped = copy(root, "d", "new/copy", recursive=True)
    made = base / "new/copy"
    assert {(each.path, each.reason) for each in skipped} == {
        ("pipe", "fifo"),
        ("socket", "socket"),
    }
    assert sorted(os.listdir(made)) == ["empty", "f", "link", "nowhere"]
    assert (os.readlink(made / "link"), os.readlink(made / "nowhere")) == ("f", "/outside")
    assert (mode(made / "empty"), mode(made / "f")) == (0o500, 0o640)
    assert made.stat().st_mtime_ns == 3_000_000_003
    assert sorted(os.listdir(base / "new")) == ["copy"]
    told = copy(root, ".", "everything", recursive=True)
    assert {each.path for each in told} == {"d/pipe", "d/socket"}
    assert sorted(os.listdir(base / "everything")) == ["d", "new", "other"]


@pytest.mark.parametrize(
    ("source", "destination", "recursive", "why"),
    [
        ("d", "x", False, "is_a_directory"),
        ("d", "other", True, "exists"),
        ("d", "d/empty", True, "exists"),
        ("other", "d", False, "is_a_directory"),
        ("other", "other", False, "same_file"),
        ("d/f", "d/link", False, "same_file"),
        ("missing", "x", True, "not_found"),
        ("pipe", "x", False, "not_a_regular_file"),
    ],
)
def test_copying_is_refused(
    root: WorkspaceRoot, base: Path, source: str, destination: str, recursive: bool, why: str
) -> None:
    os.mkfifo(base / "pipe")
    before = sorted(base.rglob("*"))
    with pytest.raises((WorkspaceArchiveWriteError, WorkspaceReadNotFoundError)) as caught:
        copy(root, source, destination, recursive=recursive)
    assert reason(caught.value) == why
    assert sorted(base.rglob("*")) == before


def test_failing_copy_leaves_nothing(
    root: WorkspaceRoot, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sorted(base.rglob("*"))

    def full(*_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    monkeypatch.setattr(os, "copy_file_range", full)
    for source, recursive in (("other", False), ("d", True)):
        with pytest.raises(WorkspaceArchiveWriteError) as caught:
            copy(root, source, "copied", recursive=recursive)
        assert reason(caught.value) == "no_space"
    assert sorted(base.rglob("*")) == before
