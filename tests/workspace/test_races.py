"""Races: somebody inside swaps directories and symlinks while the host works on them."""

from __future__ import annotations

import os
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from sandyard.errors import SandboxError
from sandyard.manifest import Dir, File, LocalDir, Manifest
from sandyard.workspace.files import list_directory, make_directory, normalize, read, remove, write
from sandyard.workspace.materialize import apply_manifest
from sandyard.workspace.opener import Kernel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sandyard.workspace import WorkspaceRoot

SECONDS = 0.5


@contextmanager
def _flipping(base: Path, bait: Path) -> Iterator[None]:
    """Make ``d`` a directory and a symlink out of the workspace by turns, as fast as it goes."""
    (base / "d").mkdir(exist_ok=True)
    (base / "d/secret").write_bytes(b"inside")
    (base / "link").symlink_to(bait)
    (base / "file-link").symlink_to(bait / "secret")
    stop = threading.Event()

    def flip() -> None:
        while not stop.is_set():
            with suppress(OSError):
                os.rename(base / "d", base / "aside")
                os.rename(base / "link", base / "d")
                os.rename(base / "d", base / "link")
                os.rename(base / "aside", base / "d")
                os.rename(base / "d/secret", base / "file-aside")
                os.rename(base / "file-link", base / "d/secret")
                os.rename(base / "d/secret", base / "file-link")
                os.rename(base / "file-aside", base / "d/secret")
            with suppress(OSError):
                (base / "d").mkdir(exist_ok=True)
                (base / "d/secret").write_bytes(b"inside")
                if not (base / "link").is_symlink():
                    (base / "link").symlink_to(bait)

    thread = threading.Thread(target=flip)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _reads(root: WorkspaceRoot) -> None:
    with read(root, "d/secret") as reader:
        content = reader.read()
    assert content != b"secret"


def _applies(root: WorkspaceRoot) -> None:
    apply_manifest(root, Manifest(entries={"d": Dir(children={"new": File(content="evil")})}))


def _copies(root: WorkspaceRoot) -> None:
    apply_manifest(root, Manifest(entries={"d": LocalDir(src="source")}), base_dir=os.getcwd())


VERBS: dict[str, Callable[[WorkspaceRoot], object]] = {
    "read": _reads,
    "ls": lambda root: [
        pytest.fail(f"leaked {entry}")
        for entry in list_directory(root, "d")
        if entry.path.endswith("/only-in-bait")
    ],
    "write": lambda root: write(root, "d/new", b"evil"),
    "overwrite": lambda root: write(root, "d/secret", b"evil"),
    "mkdir": lambda root: make_directory(root, "d/new/deep", parents=True),
    "rm": lambda root: remove(root, "d/secret"),
    "rm -r": lambda root: remove(root, "d", recursive=True),
    "normalize": lambda root: normalize(root, "d/secret").relative_to(root.path),
    "apply": _applies,
    "copy": _copies,
}


@pytest.fixture
def marked(bait: Path) -> Iterator[Path]:
    """The bait, with a name by which a listing of it is known."""
    (bait / "only-in-bait").touch()
    yield bait
    assert sorted(os.listdir(bait)) == ["only-in-bait", "secret"]
    (bait / "only-in-bait").unlink()


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("way", ["kernel", "walk"])
def test_nothing_leaks(
    root: WorkspaceRoot,
    base: Path,
    marked: Path,
    monkeypatch: pytest.MonkeyPatch,
    verb: str,
    way: str,
) -> None:
    if way == "walk":
        monkeypatch.setattr(Kernel, "resolves", False)
    monkeypatch.chdir(base.parent)
    (base.parent / "source/sub").mkdir(parents=True)
    (base.parent / "source/sub/new").touch()
    rounds = done = 0
    with _flipping(base, marked):
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            rounds += 1
            with suppress(SandboxError):
                VERBS[verb](root)
                done += 1
    assert rounds > 10
    assert done, "it never succeeded, so nothing was shown"


def test_a_naive_open_does_leak(base: Path, marked: Path) -> None:
    leaks = 0
    with _flipping(base, marked):
        end = time.monotonic() + 10
        while time.monotonic() < end and not leaks:
            with suppress(OSError):
                leaks += (base / "d/secret").read_bytes() == b"secret"
    assert leaks, "the race that the other tests run was not there"
