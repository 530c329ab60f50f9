"""ls of trees, stat, exists, same_file and glob: what they tell, and what they refuse."""

from __future__ import annotations

import errno
import fnmatch
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandyard.errors import (
    ArgumentError,
    InvalidManifestPathError,
    OutputLimitError,
    SandboxError,
    WorkspaceReadNotFoundError,
)
from sandyard.types import EntryKind
from sandyard.workspace import WorkspaceRoot, descent, listing
from sandyard.workspace.files import remove
from sandyard.workspace.listing import describe, exists, find_matches, is_same, list_directory
from sandyard.workspace.patterns import compile_glob, matches

FILES = (
    "a.py",
    "b.txt",
    ".hidden",
    "src/m.c",
    "src/m.h",
    "src/deep/er/x.py",
    "src/.git/config",
    "l[1].txt",
)


@pytest.fixture(autouse=True)
def files(base: Path) -> None:
    for name in FILES:
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).write_bytes(name.encode())
    (base / "link").symlink_to("src/m.c")
    (base / "dir-link").symlink_to("src")
    (base / "dangling").symlink_to("none")
    (base / "loop").symlink_to("loop")


def test_trees(root: WorkspaceRoot, base: Path) -> None:
    found = list_directory(root, ".", recursive=True)
    paths = [entry.path for entry in found]
    assert paths == sorted(str(path) for path in base.rglob("*"))
    links = {
        Path(entry.path).name: entry.target for entry in found if entry.kind is EntryKind.SYMLINK
    }
    assert links == {"link": "src/m.c", "dir-link": "src", "dangling": "none", "loop": "loop"}
    times = {entry.path: entry.modified_ns for entry in found}
    assert times[str(base / "a.py")] == (base / "a.py").stat().st_mtime_ns


def test_unopened_directories(root: WorkspaceRoot, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is closed to us is left out; what a machine in trouble says is told."""
    whole = len(list_directory(root, ".", recursive=True))
    for number in (errno.EACCES, errno.ENOENT, errno.EMFILE, errno.ENOMEM, errno.EIO):

        def refuse(*_: object, number: int = number) -> int:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(descent, "open_child", refuse)
        for work in (
            lambda: list_directory(root, ".", recursive=True),
            lambda: find_matches(root, "**/*", "."),
        ):
            if number in (errno.EACCES, errno.ENOENT):
                assert 0 < len(work()) < whole
            else:
                with pytest.raises(SandboxError):
                    work()


def test_too_many(root: WorkspaceRoot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "LIST_ENTRIES", 5)
    for work in (
        lambda: list_directory(root, ".", recursive=True),
        lambda: find_matches(root, "**/*", "."),
    ):
        with pytest.raises(OutputLimitError):
            work()
    assert find_matches(root, "*.py", ".") == ["a.py"]


def test_deep_trees(root: WorkspaceRoot, base: Path) -> None:
    here = os.open(base, os.O_RDONLY)
    for _ in range(3_000):
        os.mkdir("d", dir_fd=here)
        deeper = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = deeper
    os.close(here)
    try:
        assert len(list_directory(root, "d", recursive=True)) == 2_999
        assert len(find_matches(root, "d/**", ".")) == 3_000
    finally:
        remove(root, "d", recursive=True)  # what pytest can't
    assert not exists(root, "d")


def test_facts(root: WorkspaceRoot, base: Path) -> None:
    entry = describe(root, "link")
    assert (entry.path, entry.size, entry.kind) == (f"{base}/src/m.c", 7, EntryKind.FILE)
    link = describe(root, "link", follow_symlinks=False)
    assert (link.path, link.kind, link.target) == (f"{base}/link", EntryKind.SYMLINK, "src/m.c")
    assert describe(root, ".").is_dir()
    assert describe(root, "dir-link").is_dir()
    for path in ("none", "dangling", "a.py/x"):
        with pytest.raises(WorkspaceReadNotFoundError):
            describe(root, path)


def test_existence(root: WorkspaceRoot) -> None:
    assert exists(root, "a.py")
    assert exists(root, "dir-link/m.c")
    assert exists(root, ".")
    assert not exists(root, "none")
    assert not exists(root, "dangling")
    assert not exists(root, "a.py/x")
    assert exists(root, "dangling", follow_symlinks=False)
    with pytest.raises(InvalidManifestPathError):
        exists(root, "../x")


def test_sameness(root: WorkspaceRoot, base: Path) -> None:
    os.link(base / "a.py", base / "twin")
    assert is_same(root, "a.py", "twin")
    assert is_same(root, "link", "src/m.c")
    assert is_same(root, "dir-link", "src")
    assert not is_same(root, "a.py", "b.txt")
    assert not is_same(root, "none", "none")
    assert not is_same(root, "dangling", "dangling")
    assert not is_same(root, "link", "link", follow_symlinks=False)


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.py", ["a.py"]),
        ("**/*.py", ["a.py", "src/deep/er/x.py"]),
        ("src/m.?", ["src/m.c", "src/m.h"]),
        ("src/**", ["src", "src/deep", "src/deep/er", "src/deep/er/x.py", "src/m.c", "src/m.h"]),
        ("src/*.{c,h}", ["src/m.c", "src/m.h"]),
        ("{a,b}.*", ["a.py", "b.txt"]),
        ("**/er/*", ["src/deep/er/x.py"]),
        (".*", [".hidden"]),
        ("src/.git/*", ["src/.git/config"]),
        ("[!a]*.txt", ["b.txt", "l[1].txt"]),
        ("l[[]1].txt", ["l[1].txt"]),
        ("l*", ["l[1].txt", "link", "loop"]),
        ("dir-link/*", []),
        ("none/*", []),
        ("src/deep/", ["src/deep"]),
    ],
)
def test_patterns(root: WorkspaceRoot, pattern: str, found: list[str]) -> None:
    assert find_matches(root, pattern, ".") == found


@pytest.mark.parametrize(
    "wrong", ["", "/etc/*", "../*", "a/../b", "x\0", "{1,2}" * 7, "*" * 5000, None, 3]
)
def test_patterns_that_are_none(root: WorkspaceRoot, wrong: str) -> None:
    with pytest.raises(ArgumentError):
        find_matches(root, wrong, ".")


def test_search_below_what_is_none(root: WorkspaceRoot) -> None:
    assert find_matches(root, "m.*", "dir-link") == ["m.c", "m.h"]
    for path in ("none", "a.py"):
        with pytest.raises(WorkspaceReadNotFoundError):
            find_matches(root, "*", path)


LETTERS = "ab.*?[]!-"


@settings(max_examples=500, deadline=None)
@given(pattern=st.text(LETTERS, max_size=8), name=st.text("ab.-]!", min_size=1, max_size=8))
def test_names_match_as_elsewhere(pattern: str, name: str) -> None:
    if name.startswith(".") and not pattern.startswith("."):
        assert not matches(pattern, name)
    else:
        assert matches(pattern, name) == fnmatch.fnmatchcase(name, pattern)


@settings(max_examples=200, deadline=None)
@given(
    parts=st.lists(st.sampled_from(["**", "*", "a", "b"]), min_size=1, max_size=6),
    names=st.lists(st.sampled_from(["a", "b"]), max_size=6),
)
def test_depths_match_as_words_say(parts: list[str], names: list[str]) -> None:
    glob = compile_glob("/".join(parts))
    states = glob.start()
    for name in names:
        states = glob.step(states, name)

    def simple(left: list[str], rest: list[str]) -> bool:
        if not left:
            return not rest
        if left[0] == "**":
            return any(simple(left[1:], rest[at:]) for at in range(len(rest) + 1))
        return bool(rest) and matches(left[0], rest[0]) and simple(left[1:], rest[1:])

    assert glob.is_match(states) == simple(parts, names)


def test_no_pattern_takes_for_ever() -> None:
    assert not matches("*a" * 1_000 + "b", "a" * 255)
    states = compile_glob("**/" * 500 + "x").start()
    for _ in range(200):
        states = compile_glob("**/" * 500 + "x").step(states, "a")
    assert states
