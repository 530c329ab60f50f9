"""The root itself is renamed, replaced or removed, and mounts come and go beneath it."""

from __future__ import annotations

import ctypes
import os
import shutil
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sandyard.errors import SandboxError, WorkspaceRootNotFoundError
from sandyard.manifest import File, Manifest
from sandyard.workspace import WorkspaceRoot
from sandyard.workspace.files import make_directory, read, remove, write
from sandyard.workspace.kernel import Kernel
from sandyard.workspace.listing import list_directory
from sandyard.workspace.materialize import apply_manifest
from sandyard.workspace.removal import empty_directory
from tests.workspace.race.arena import running
from tests.workspace.race.watch import describe_tree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.workspace.race.arena import Arena

ROUNDS = 200
MS_BIND, MNT_DETACH = 4096, 2
LIBC = ctypes.CDLL(None, use_errno=True)


def find_inode(top: Path, inode: int) -> Path:
    """Where a directory is by now."""
    return next(path for path in top.iterdir() if path.lstat().st_ino == inode)


def test_work_goes_on_in_the_directory_that_is_held(raced: WorkspaceRoot, arena: Arena) -> None:
    impostor = arena.outside
    before, inode = describe_tree(impostor), impostor.stat().st_ino
    words = [str(arena.attacker), "root", str(arena.base), str(impostor), str(arena.base)]
    with running([*words]):
        for n in range(ROUNDS):
            write(raced, f"d{n % 5}/f", b"%d" % n)
            with read(raced, str(arena.base / f"d{n % 5}/f")) as reader:
                assert reader.read() == b"%d" % n
            assert len(list_directory(raced, ".")) == min(n + 1, 5)
            make_directory(raced, "m")
            remove(raced, "m")
        remove(raced, "d0", recursive=True)
    assert sorted(os.listdir(raced.fd)) == ["d1", "d2", "d3", "d4"]
    assert describe_tree(find_inode(arena.base.parent, inode)) == before


@pytest.mark.parametrize("kind", ["directory", "symlink"])
def test_delete_never_deletes_the_replacement(
    arena: Arena, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    place = arena.base.parent / "places"
    place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    impostor = place / "impostor"
    if kind == "directory":
        arena.outside.rename(impostor)
        (place.parent / "outside").symlink_to(impostor)
    else:
        impostor.symlink_to(arena.outside)
    inode, before = impostor.lstat().st_ino, describe_tree(arena.outside.resolve())
    for _ in range(30):
        with WorkspaceRoot.create_private() as root:
            write(root, "d/f", b"x")
            words = [str(arena.attacker), "root", str(place), str(impostor), root.path]
            with running([*words]):
                root.delete()
            find_inode(place, inode).rename(place.parent / "aside")
            for path in place.iterdir():
                shutil.rmtree(path)
            (place.parent / "aside").rename(impostor)
    assert describe_tree(arena.outside.resolve()) == before


def test_a_manifest_for_a_root_that_is_gone(raced: WorkspaceRoot, arena: Arena) -> None:
    arena.base.rmdir()
    with pytest.raises(WorkspaceRootNotFoundError):
        apply_manifest(raced, Manifest(entries={"f": File(content="x")}))
    arena.base.mkdir()


@contextmanager
def mounting(source: Path, target: Path) -> Iterator[None]:
    """A directory of outside and an empty tmpfs are mounted and unmounted again in the block."""
    stop, tried = threading.Event(), threading.Event()
    where, count = os.fsencode(target), 0

    def flip() -> None:
        nonlocal count
        while not stop.is_set():
            bound = LIBC.mount(os.fsencode(source), where, None, MS_BIND, None) == 0
            count += bound
            if bound or LIBC.mount(b"tmpfs", where, b"tmpfs", 0, None) == 0:
                LIBC.umount2(where, MNT_DETACH)
            tried.set()

    thread = threading.Thread(target=flip)
    thread.start()
    try:
        assert tried.wait(20)
        yield
    finally:
        stop.set()
        thread.join()
    assert count, "nothing was ever mounted"


@pytest.mark.root
@pytest.mark.parametrize("way", ["kernel", "walk"])
@pytest.mark.parametrize("verb", ["rm", "delete"])
def test_mounts_are_never_emptied(
    raced: WorkspaceRoot, arena: Arena, monkeypatch: pytest.MonkeyPatch, way: str, verb: str
) -> None:
    monkeypatch.setattr(Kernel, "resolves", way == "kernel")
    target = arena.base / "d/mnt"
    target.mkdir(parents=True)
    if LIBC.mount(os.fsencode(arena.outside), os.fsencode(target), None, MS_BIND, None) != 0:
        pytest.skip("bind mounts are not allowed here")
    LIBC.umount2(os.fsencode(target), MNT_DETACH)
    end = time.monotonic() + 0.7
    with arena.untouched(), mounting(arena.outside, target):
        while time.monotonic() < end:
            target.mkdir(parents=True, exist_ok=True)
            with suppress(OSError):
                (arena.base / "d/f").touch()
            with suppress(SandboxError):
                if verb == "rm":
                    remove(raced, "d", recursive=True)
                else:
                    empty_directory(raced.fd)
        target.mkdir(parents=True, exist_ok=True)
    arena.clear()
