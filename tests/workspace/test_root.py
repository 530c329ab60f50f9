"""The root directory: made, opened, recognised, and deleted only when it is ours."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from sandyard.errors import ArgumentError, SessionClosedError, WorkspaceStartError
from sandyard.workspace import Inode, WorkspaceRoot


def test_private_directory() -> None:
    with WorkspaceRoot.create_private() as root:
        path = Path(root.path)
        facts = path.stat()
        assert path.name.startswith("sandbox-local-")
        assert stat.S_IMODE(facts.st_mode) == 0o700
        assert root.path == root.real_path == root.inside
        assert root.inode == Inode(facts.st_dev, facts.st_ino)
        assert root.owner == (facts.st_uid, facts.st_gid)
        assert root.owned
        assert not os.get_inheritable(root.fd)
        assert root.delete()
        assert root.gone
        assert root.delete()
        assert not path.exists()


def test_an_existing_directory(base: Path) -> None:
    (base / "mine").touch()
    with WorkspaceRoot.open(f"{base}/../{base.name}/") as root:
        assert root.path == str(base)
        assert not root.owned
        assert not root.delete()
    assert (base / "mine").exists()


def test_a_missing_directory_is_made(tmp_path: Path) -> None:
    with WorkspaceRoot.open(tmp_path / "a/b/c", inside="/elsewhere") as root:
        assert (tmp_path / "a/b/c").is_dir()
        assert root.inside == "/elsewhere"


def test_closing(base: Path) -> None:
    root = WorkspaceRoot.open(base)
    root.close()
    root.close()
    for use in (lambda: root.fd, root.delete, lambda: root.owner):
        with pytest.raises(SessionClosedError):
            use()


@pytest.mark.parametrize("path", ["", "relative", "/", "//", "/..", "/a\0b", 3, "/" + "x" * 256])
def test_impossible_roots(path: str) -> None:
    for use in (WorkspaceRoot.open, WorkspaceRoot.check):
        with pytest.raises(ArgumentError) as caught:
            use(path)
        assert caught.value.context["argument"] == "root"


@pytest.mark.parametrize("kind", ["file", "link", "dangling", "fifo"])
def test_roots_that_are_no_directories(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "root"
    target = tmp_path / "target"
    if kind == "file":
        path.touch()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to(target)
        if kind == "link":
            target.mkdir()
    before = sorted(child.name for child in tmp_path.iterdir())
    for use in (WorkspaceRoot.open, WorkspaceRoot.check):
        with pytest.raises(WorkspaceStartError) as caught:
            use(path)
        reason = "symlink" if kind in {"link", "dangling"} else "not_a_directory"
        assert caught.value.context["reason"] == reason
    assert sorted(child.name for child in tmp_path.iterdir()) == before


def test_a_file_on_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WorkspaceStartError):
        WorkspaceRoot.open(tmp_path / "file/a/b")


def test_parents_may_be_symlinks(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with WorkspaceRoot.open(tmp_path / "link/ws") as root:
        assert root.path == str(tmp_path / "link/ws")
        assert root.real_path == str(tmp_path / "real/ws")


def test_checking_makes_nothing(tmp_path: Path) -> None:
    WorkspaceRoot.check(str(tmp_path / "a/b"))
    assert list(tmp_path.iterdir()) == []


def test_owning_is_believed_only_of_our_names(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="sandbox-local-"):
        WorkspaceRoot.open(tmp_path / "home", owned=True)
    assert not (tmp_path / "home").exists()


def test_what_replaced_the_root_is_not_deleted() -> None:
    with WorkspaceRoot.create_private() as root:
        path = Path(root.path)
        moved = path.with_name("moved-" + path.name)
        path.rename(moved)
        path.mkdir()
        (path / "precious").touch()
        (moved / "inside").touch()
        assert not root.delete()
        assert (path / "precious").exists()
        assert (moved / "inside").exists()
        (path / "precious").unlink()
        path.rmdir()
        path.symlink_to(moved)
        assert not root.delete()
        assert (moved / "inside").exists()
        path.unlink()
        assert not root.delete()
        moved.rename(path)
        assert root.delete()


def test_links_out_are_removed_not_followed(bait: Path) -> None:
    with WorkspaceRoot.create_private() as root:
        path = Path(root.path)
        (path / "link").symlink_to(bait)
        (path / "file-link").symlink_to(bait / "secret")
        (path / "hard").hardlink_to(bait / "secret")
        (path / "d").mkdir()
        (path / "d/link").symlink_to(bait)
        assert root.delete()


def test_unreadable_directories_are_deleted() -> None:
    with WorkspaceRoot.create_private() as root:
        path = Path(root.path)
        (path / "shut/inner").mkdir(parents=True)
        (path / "shut/inner/file").touch()
        (path / "read-only").mkdir()
        (path / "read-only/file").touch()
        (path / "shut/inner").chmod(0)
        (path / "shut").chmod(0)
        (path / "read-only").chmod(0o500)
        path.chmod(0o500)
        assert root.delete()


def test_names_in_any_bytes_are_deleted() -> None:
    with WorkspaceRoot.create_private() as root:
        top = os.fsencode(root.path)
        for name in (b"\xff\xfe", b"new\nline", b"-rf", b" ", b"\\", "é".encode(), b"x" * 255):
            Path(os.fsdecode(top + b"/" + name)).mkdir()
            Path(os.fsdecode(top + b"/" + name + b"/" + name)).touch()
        assert root.delete()


def test_ten_thousand_levels_are_deleted() -> None:
    with WorkspaceRoot.create_private() as root:
        here = os.dup(root.fd)
        for _ in range(10_000):
            os.mkdir("d", dir_fd=here)
            deeper = os.open("d", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = deeper
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=here))
        os.close(here)
        assert root.delete()


@pytest.mark.root
def test_mounts_are_neither_entered_nor_moved(bait: Path) -> None:
    with WorkspaceRoot.create_private() as root:
        mounted = Path(root.path, "a/mnt")
        mounted.mkdir(parents=True)
        (mounted.parent / "file").touch()
        done = subprocess.run(["mount", "--bind", str(bait), str(mounted)], check=False)
        if done.returncode:
            pytest.skip("bind mounts are not allowed here")
        try:
            assert not root.delete()
            assert (mounted / "secret").read_bytes() == b"secret"
            assert not (mounted.parent / "file").exists()
        finally:
            subprocess.run(["umount", str(mounted)], check=True)
        assert root.delete()
