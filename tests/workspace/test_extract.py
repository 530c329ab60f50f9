"""Archives are unpacked whole or not at all, and nowhere but into the workspace."""

from __future__ import annotations

import fcntl
import io
import os
import stat
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from sandyard.archive import SandboxArchiveLimits, bounds
from sandyard.archive.report import ArchiveNote, ArchiveReport
from sandyard.errors import (
    ArgumentError,
    InvalidManifestPathError,
    SandboxError,
    WorkspaceArchiveWriteError,
    WorkspaceWriteTypeError,
)
from sandyard.workspace import WorkspaceRoot
from sandyard.workspace.extract import Extraction, extract_archive
from sandyard.workspace.extract_stage import Stage, clear_stages, forget_stages
from sandyard.workspace.extract_tree import ANYHOW, rename
from tests.archive.making import (
    END,
    WRAPS,
    Entry,
    directory,
    hard_link,
    header,
    item,
    padded,
    symlink,
    tar_of,
    zip_of,
)


def looks_of(top: Path) -> dict[str, object]:
    """What a tree is like, apart from what only the kernel can set."""
    found: dict[str, object] = {}
    for path in (top, *sorted(top.rglob("*"))):
        facts = path.lstat()
        kept = path.read_bytes() if stat.S_ISREG(facts.st_mode) else b""
        found[str(path)] = (facts.st_mode, facts.st_ino, facts.st_mtime_ns, kept)
    return found


def unpack(
    root: WorkspaceRoot,
    data: object,
    path: str = "a.tar",
    *,
    form: str | None = None,
    limits: SandboxArchiveLimits | None = None,
    keep: bool = False,
) -> ArchiveReport:
    limits = limits or SandboxArchiveLimits()
    return extract_archive(root, path, data, Extraction(form=form, limits=limits, keep=keep))


def refused(
    root: WorkspaceRoot,
    base: Path,
    data: object,
    *,
    form: str | None = None,
    limits: SandboxArchiveLimits | None = None,
    keep: bool = False,
) -> str:
    """Why an archive is refused; the workspace is as it was."""
    before = looks_of(base)
    with pytest.raises(WorkspaceArchiveWriteError) as caught:
        unpack(root, data, form=form, limits=limits, keep=keep)
    assert looks_of(base) == before
    assert "nothing was written" in str(caught.value)
    return str(caught.value.context["reason"])


@pytest.mark.parametrize("wrap", WRAPS)
def test_everything_is_there(root: WorkspaceRoot, base: Path, wrap: str) -> None:
    items = (
        directory("lib", mode=0o750, mtime=5),
        item("lib/run", b"#!/bin/sh\n", mode=0o755),
        item("lib/secret", b"s", mode=0o400, mtime=1_234_567_890.25, pax_headers={}),
        symlink("lib/link", "run"),
        hard_link("other", "lib/run"),
        directory("closed", mode=0o555),
        item("deep/er/file", b"x" * 300_000),
    )
    report = unpack(root, WRAPS[wrap](tar_of(*items)))
    assert (report.files, report.directories, report.symlinks, report.hard_links) == (3, 2, 1, 1)
    assert (base / "lib/run").read_bytes() == b"#!/bin/sh\n"
    assert stat.S_IMODE((base / "lib/run").stat().st_mode) == 0o755
    assert stat.S_IMODE((base / "lib/secret").stat().st_mode) == 0o400
    assert (base / "lib/secret").stat().st_mtime_ns == 1_234_567_890_250_000_000
    assert stat.S_IMODE((base / "lib").stat().st_mode) == 0o750
    assert (base / "lib").stat().st_mtime == 5
    assert stat.S_IMODE((base / "closed").stat().st_mode) == 0o555
    assert os.readlink(base / "lib/link") == "run"
    assert (base / "other").samefile(base / "lib/run")
    assert (base / "deep/er/file").stat().st_size == 300_000
    assert sorted(os.listdir(base)) == ["closed", "deep", "lib", "other"]


def test_the_archive_stays_beside(root: WorkspaceRoot, base: Path) -> None:
    data = zip_of(("f", b"x"))
    extract_archive(root, "new/down/a.zip", io.BytesIO(data), Extraction())
    assert (base / "new/down/a.zip").read_bytes() == data
    assert (base / "new/down/f").read_bytes() == b"x"
    assert os.listdir(base) == ["new"]


def test_files_beside_one_another(root: WorkspaceRoot, base: Path) -> None:
    """Which directory a name leads to depends on the whole of it, whatever names stood before."""
    names = ["./a/b/1", "./a/2", "a/b/3", "a//b//4", "5", "./6", "a/b/7", "a/b/x/.", "a/b/8"]
    files = [item(name, name.encode()) for name in names]
    report = unpack(root, tar_of(*files, form=tarfile.GNU_FORMAT))
    found = {str(path.relative_to(base)): path for path in base.rglob("*") if path.is_file()}
    assert {name: path.read_bytes().decode() for name, path in found.items()} == {
        os.path.normpath(name): name for name in names
    }
    assert (report.files, report.size) == (9, sum(len(content) for _, content in files))


def test_more_files_than_memory_holds(root: WorkspaceRoot, base: Path) -> None:
    """Files that begin in one portion of what is read and end in another, large and small."""
    sizes = [(number * 7919) % 3000 for number in range(600)] + [400_000, 0, 1, 512, 511, 513]
    names = [f"d{number // 50}/f{number}" for number in range(len(sizes))]
    contents = [os.urandom(size) for size in sizes]
    data = tar_of(*map(item, names, contents), form=tarfile.USTAR_FORMAT)
    for source in (data, io.BytesIO(data)):
        assert unpack(root, source).files == len(names)
        assert [(base / name).read_bytes() for name in names] == contents


def test_a_name_twice_among_many(root: WorkspaceRoot, base: Path) -> None:
    items = [item(f"d/f{number}") for number in range(50)]
    data = tar_of(*items, item("d/./f7"), item("e"), form=tarfile.GNU_FORMAT)
    assert refused(root, base, data) == "duplicate archive path: d/f7"


def test_a_stream_is_judged_whole(
    root: WorkspaceRoot, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How much more than the archive its content is, counts at its end, however it came."""
    monkeypatch.setattr(bounds, "ARCHIVE_RATIO_FLOOR", 100_000)
    data = WRAPS["gz"](tar_of(item("zeros", bytes(3_000_000)), item("f", os.urandom(600_000))))
    limits = SandboxArchiveLimits(max_ratio=10)
    unpack(root, io.BytesIO(data), limits=limits)
    assert (base / "f").stat().st_size == 600_000


def test_special_bits_are_dropped_and_told(root: WorkspaceRoot, base: Path) -> None:
    items = (item("f", mode=0o6755), directory("d", mode=0o1777))
    report = unpack(root, tar_of(*items))
    assert report.dropped == (
        ArchiveNote("f", "setuid"),
        ArchiveNote("f", "setgid"),
        ArchiveNote("d", "sticky"),
    )
    assert stat.S_IMODE((base / "f").stat().st_mode) == 0o755
    assert stat.S_IMODE((base / "d").stat().st_mode) == 0o777


NAMES: dict[str, tuple[tuple[Entry, ...], str]] = {
    "absolute": ((item("/etc/x"),), "absolute path"),
    "traversal": ((item("a/../../x"),), "parent traversal"),
    "drive": ((item("C:x"),), "windows drive path"),
    "backslash": ((item("a\\b"),), "windows path separator"),
    "backslash beside": ((item("d/a"), item("d/a\\b")), "windows path separator"),
    "root is a file": ((item("."),), "archive root file"),
    "root is a link": ((symlink(".", "x"),), "archive root symlink"),
    "twice": ((item("f"), item("./f")), "duplicate archive path: f"),
    "file, then directory": ((item("f"), directory("f")), "archive path descends through non-dir"),
    "directory, then file": ((directory("f"), item("f")), "duplicate archive path: f"),
    "beneath a file": ((item("f"), item("f/g")), "archive path descends through non-directory: f"),
    "link, then write": (
        (symlink("l", "."), item("l/x")),
        "archive path descends through symlink: l",
    ),
    "link, then directory": (
        (symlink("l", "d"), directory("l/x")),
        "archive path descends through symlink: l",
    ),
    "absolute link": ((symlink("l", "/etc"),), "absolute symlink target not allowed: '/etc'"),
    "link out": ((symlink("d/l", "../../x"),), "symlink target escapes archive root"),
    "links out together": (
        (symlink("x", "."), symlink("y", "x/..")),
        "symlink target escapes archive root",
    ),
    "links out together, the other way": (
        (symlink("y", "d/x/.."), symlink("d/x", "..")),
        "symlink target escapes archive root",
    ),
    "hard link to a symlink elsewhere": (
        (directory("d/e"), symlink("d/e/l", "../.."), hard_link("l", "d/e/l")),
        "symlink target escapes archive root",
    ),
    "hard link out": ((hard_link("h", "../bait/secret"),), "parent traversal"),
    "absolute hard link": ((hard_link("h", "/etc/passwd"),), "absolute path"),
    "hard link to what is not there": (
        (hard_link("h", "missing"),),
        "hard link to what is no earlier file of the archive: missing",
    ),
    "hard link through a symlink": (
        (directory("d"), item("d/f"), symlink("l", "d"), hard_link("h", "l/f")),
        "hard link to what is no earlier file",
    ),
    "hard link to a directory": ((directory("d"), hard_link("h", "d")), "hard link to what is no"),
    "hard link to the root": ((hard_link("h", "."),), "hard link to what is no earlier file"),
    "name too long": ((item("n" * 256),), "name is too long"),
    "deep": ((item("d/" * 128 + "f"),), "path depth exceeds limit"),
    "long": ((item("dir/" * 1100 + "f"),), "path is too long"),
}


@pytest.mark.parametrize("case", NAMES)
@pytest.mark.usefixtures("bait")
def test_refused_members(root: WorkspaceRoot, base: Path, case: str) -> None:
    (base / "there").write_bytes(b"before")
    items, reason = NAMES[case]
    data = tar_of(item("first", b"x"), *items)
    assert refused(root, base, data).startswith(reason)
    assert refused(root, base, WRAPS["gz"](data), keep=True).startswith(reason)


def test_deep_is_a_limit(root: WorkspaceRoot, base: Path) -> None:
    limits = SandboxArchiveLimits(max_depth=None, max_path_bytes=None)
    unpack(root, tar_of(item("d/" * 3000 + "f", b"x")), limits=limits)
    subprocess.run(["rm", "-r", str(base / "d")], check=True)


def test_unicode_and_case_are_names(root: WorkspaceRoot, base: Path) -> None:
    names = {"é", "e\u0301", "A", "a"}
    unpack(root, tar_of(*(item(name) for name in sorted(names))))
    assert set(os.listdir(base)) == names  # a file system that folds them refuses the second


def test_holes_stay(root: WorkspaceRoot, base: Path) -> None:
    extents = b"%011o\0%011o\0" % (50_000_000, 4)
    block = header(b"s", b"S", b"4", extents=extents + bytes(72) + b"\0" + b"%011o\0" % 60_000_000)
    unpack(root, block + padded(b"data") + END)
    facts = (base / "s").stat()
    assert facts.st_size == 60_000_000
    assert facts.st_blocks * 512 < 1_000_000
    with open(base / "s", "rb") as file:
        file.seek(50_000_000)
        assert file.read(4) == b"data"


LIMITS = {
    "archive input size exceeds limit": SandboxArchiveLimits(max_input_bytes=1000),
    "archive extracted size exceeds limit": SandboxArchiveLimits(max_extracted_bytes=99),
    "archive member count exceeds limit": SandboxArchiveLimits(max_members=1),
}


@pytest.mark.parametrize("reason", LIMITS)
@pytest.mark.parametrize("form", [bytes, io.BytesIO])
def test_limits(
    root: WorkspaceRoot, base: Path, reason: str, form: Callable[[bytes], object]
) -> None:
    data = tar_of(item("a", b"x" * 50), item("b", b"x" * 50))
    assert refused(root, base, form(data), limits=LIMITS[reason]) == reason
    assert refused(root, base, form(data), limits=LIMITS[reason], keep=True) == reason


def test_impossible_limits() -> None:
    for value in (0, -1, True, "1", 1.5):
        with pytest.raises(ArgumentError, match="max_members"):
            SandboxArchiveLimits(max_members=value)  # type: ignore[arg-type]


def test_content_decides(root: WorkspaceRoot, base: Path) -> None:
    assert refused(root, base, b"") == "the content is no archive of a known format"
    assert refused(root, base, b"Rar!\x1a\x07" + bytes(600)).startswith("the content is no archive")
    assert refused(root, base, zip_of(("f", b"")), form="tar") == "the content is no tar archive"
    assert refused(root, base, tar_of(item("f")), form="zip") == "the content is no zip archive"
    unpack(root, zip_of(("f", b"")), path="a.tar.gz")
    assert os.listdir(base) == ["f"]


def test_merges(root: WorkspaceRoot, base: Path, bait: Path) -> None:
    (base / "d").mkdir()
    (base / "d/kept").write_bytes(b"kept")
    (base / "d/f").write_bytes(b"old")
    (base / "d/l").symlink_to(bait / "secret")
    unpack(root, tar_of(item("d/f", b"new"), item("d/l", b"new"), item("d/g", b"new")))
    assert {path.name: path.read_bytes() for path in (base / "d").iterdir()} == {
        "kept": b"kept",
        "f": b"new",
        "l": b"new",
        "g": b"new",
    }


@pytest.mark.parametrize("renames", ["renameat2", "plain"])
def test_clashes_change_nothing(
    root: WorkspaceRoot, base: Path, bait: Path, renames: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if renames == "plain":
        monkeypatch.setattr("sandyard.workspace.extract_tree._RENAMEAT2", {})
    (base / "link").symlink_to(bait)
    (base / "file").write_bytes(b"old")
    (base / "d").mkdir()
    (base / "z").mkdir()
    (base / "z/f").write_bytes(b"old")
    others = tuple(item(name, b"new") for name in ("a", "file", "z/f", "z/g"))
    cases = {
        "link/x": "symlink in parent path: link",
        "file/x": "destination is no directory: file",
        "d": "destination is a directory: d",
    }
    for name, reason in cases.items():
        fit = [each for each in others if not name.startswith(each[0].name)]
        assert refused(root, base, tar_of(*fit, item(name, b"new"))) == reason


@pytest.mark.parametrize("renames", ["renameat2", "plain"])
def test_failure_in_the_exchange_is_undone(
    root: WorkspaceRoot, base: Path, renames: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if renames == "plain":
        monkeypatch.setattr("sandyard.workspace.extract_tree._RENAMEAT2", {})
    (base / "d").mkdir(0o755)
    os.utime(base / "d", (5, 5))
    names = [f"d/f{number}" for number in range(8)] + [f"e{number}" for number in range(4)]
    for name in names[::2]:
        (base / name).write_bytes(b"old")
    os.utime(base / "d", (5, 5))
    before = looks_of(base)
    data = tar_of(directory("d", mode=0o700), *(item(name, b"new") for name in names))

    calls = 0

    def failing(directory: int, name: bytes, to: int, new: bytes, how: int = ANYHOW) -> None:
        nonlocal calls
        calls += 1
        if calls == 7:
            raise OSError(28, "No space left on device")
        rename(directory, name, to, new, how)

    monkeypatch.setattr("sandyard.workspace.extract_publish.rename", failing)
    with pytest.raises(WorkspaceArchiveWriteError) as caught:
        unpack(root, data)
    assert caught.value.context["reason"] == "no_space"
    assert calls > 7
    assert looks_of(base) == before
    assert (base / "d").stat().st_mtime == 5


def test_impossible_paths(root: WorkspaceRoot, base: Path, bait: Path) -> None:
    data = tar_of(item("f"))
    (base / "out").symlink_to(bait)
    for path in ("out/a.tar", "../a.tar", "/etc/a.tar"):
        with pytest.raises(InvalidManifestPathError):
            unpack(root, data, path=path)
    for path in (".", "d/..", "", "a\0b"):
        with pytest.raises(SandboxError):
            unpack(root, data, path=path)
    assert os.listdir(base) == ["out"]


def test_what_is_no_bytes(root: WorkspaceRoot, base: Path) -> None:
    for data in ("text", io.StringIO("text"), 5, None, [b"x"]):
        with pytest.raises(WorkspaceWriteTypeError):
            unpack(root, data)
    assert os.listdir(base) == []


class Breaking(io.RawIOBase):
    """A stream that fails on the way."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, size: int = -1) -> bytes:
        if not self._data:
            raise OSError(5, "the source is gone")
        piece, self._data = self._data[:100], b""
        return piece


def test_a_source_that_fails(root: WorkspaceRoot, base: Path) -> None:
    with pytest.raises(WorkspaceArchiveWriteError) as caught:
        unpack(root, Breaking(tar_of(item("f", b"x" * 500))))
    assert caught.value.context["reason"] == "source_unreadable"
    assert os.listdir(base) == []


@pytest.mark.parametrize("mark", ["", "{}", '{"version": 1, "device": 1, "inode": 1, "rules": []}'])
def test_a_mark_that_names_nothing(
    root: WorkspaceRoot, base: Path, tmp_path: Path, mark: str
) -> None:
    """Half-written or another's, it lets nothing be deleted but what is empty."""
    full, empty = (f".sandyard-{digit * 16}.stage" for digit in "01")
    (base / full / "new").mkdir(parents=True)
    (base / empty).mkdir()
    for name in (full, empty):
        (tmp_path / name).write_text(mark)
    session = os.open(tmp_path, os.O_RDONLY)
    clear_stages(root.fd, None, session)
    forget_stages(session)
    os.close(session)
    assert sorted(os.listdir(base)) == ([full, empty] if "device" in mark else [full])
    assert os.listdir(tmp_path) == ["ws"]


def test_a_stage_is_locked(root: WorkspaceRoot) -> None:
    with Stage(root.fd, None):
        (name,) = os.listdir(root.fd)
        other = os.open(name, os.O_RDONLY, dir_fd=root.fd)
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(other)


def test_another_tool_agrees(root: WorkspaceRoot, base: Path, tmp_path: Path) -> None:
    items = [item(f"d{n % 7}/f{n}", b"x" * n, mode=0o600 + n % 64) for n in range(60)]
    data = tar_of(*items, symlink("d1/l", "../d2/f2"), hard_link("h", "d3/f3"))
    (tmp_path / "other").mkdir()
    words = ["tar", "-xpf", "-", "-C", str(tmp_path / "other")]
    subprocess.run(words, input=data, check=True)
    unpack(root, data)

    def files(top: Path) -> dict[str, object]:
        return {
            str(path.relative_to(top)): (path.lstat().st_mode, int(path.lstat().st_mtime))
            for path in top.rglob("*")
            if not path.is_dir()
        }

    assert files(base) == files(tmp_path / "other")
