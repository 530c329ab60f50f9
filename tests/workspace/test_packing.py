"""A file or a tree, packed and unpacked elsewhere: exact, whole, and never through a link."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest

from sandyard.archive.report import ArchiveNote, ArchiveReport
from sandyard.errors import (
    ArgumentError,
    InvalidManifestPathError,
    WorkspaceArchiveReadError,
    WorkspaceArchiveWriteError,
    WorkspaceReadNotFoundError,
)
from sandyard.workspace import WorkspaceRoot
from sandyard.workspace.extract import unpack_into
from sandyard.workspace.extract_members import Abandoned
from sandyard.workspace.persist_stream import pack_part
from tests.archive.making import item, symlink, tar_of
from tests.workspace.sample import looks


@pytest.fixture
def there(tmp_path: Path) -> Iterator[WorkspaceRoot]:
    """Another tree than the one that is packed."""
    (tmp_path / "there").mkdir()
    with WorkspaceRoot.open(tmp_path / "there") as root:
        yield root


@pytest.fixture
def here(tmp_path: Path) -> Iterator[WorkspaceRoot]:
    """What is packed."""
    source = tmp_path / "here" / "src"
    (source / "sub" / "empty").mkdir(parents=True)
    (source / "sub" / "file").write_bytes(b"content")
    (source / "sub" / "file").chmod(0o751)
    os.link(source / "sub" / "file", source / "hard")
    (source / "absolute").symlink_to("/etc/passwd")
    (source / "dangling").symlink_to("../../no/such")
    (source / os.fsdecode(b"odd\xff\n")).write_bytes(b"")
    os.utime(source / "sub" / "empty", ns=(1, 1_234_567_890_123))
    (source / "sub" / "empty").chmod(0o500)
    (tmp_path / "here" / "link").symlink_to("src")
    with WorkspaceRoot.open(tmp_path / "here") as root:
        yield root
    (source / "sub" / "empty").chmod(0o700)


def packed(root: WorkspaceRoot, path: str, name: str | None = None) -> tuple[bytes, ArchiveReport]:
    with pack_part(root, path, name) as archive:
        data = archive.read()
        assert archive.report is not None
        return data, archive.report


def unpack(root: WorkspaceRoot, path: str, data: object) -> ArchiveReport:
    return unpack_into(root, path, data, None, Event())


@pytest.mark.parametrize(
    ("path", "name", "below"),
    [("src", None, "src"), ("src/", "other", "other"), ("link", None, "link"), ("src/.", None, "")],
)
def test_tree_is_same_elsewhere(
    here: WorkspaceRoot, there: WorkspaceRoot, path: str, name: str | None, below: str
) -> None:
    data, report = packed(here, path, name)
    unpack(there, ".", data)
    copy = os.path.join(there.path, below)
    wanted, found = looks(os.fsencode(here.path) + b"/src"), looks(os.fsencode(copy))
    if not below:  # the directory itself stays as it was
        wanted.pop(b""), found.pop(b"")
    assert found == wanted
    assert (report.files, report.hard_links, report.symlinks) == (2, 1, 2)
    os.chmod(os.path.join(copy, "sub", "empty"), 0o700)


def test_file_comes_under_name(here: WorkspaceRoot, there: WorkspaceRoot) -> None:
    os.mkdir(os.path.join(there.path, "deep"))
    data, _ = packed(here, "src/sub/file", "called")
    before = os.stat(there.path).st_mtime_ns
    assert unpack(there, "deep", data).files == 1
    copy, facts = Path(there.path, "deep", "called"), os.stat(Path(here.path, "src/sub/file"))
    assert copy.read_bytes() == b"content"
    assert (copy.stat().st_mode, copy.stat().st_mtime_ns) == (facts.st_mode, facts.st_mtime_ns)
    assert os.stat(there.path).st_mtime_ns == before  # a stage came and went there
    assert os.listdir(there.path) == ["deep"]


def test_present_files_are_replaced(here: WorkspaceRoot, there: WorkspaceRoot) -> None:
    aside = Path(there.path).parent / "aside"
    aside.write_text("untouched")
    Path(there.path, "src", "sub").mkdir(parents=True)
    Path(there.path, "src", "own").write_text("stays")
    Path(there.path, "src", "hard").symlink_to(aside)
    data, _ = packed(here, "src/hard")
    unpack(there, "src", data)
    assert Path(there.path, "src", "hard").read_bytes() == b"content"
    assert not Path(there.path, "src", "hard").is_symlink()
    assert aside.read_text() == "untouched"
    assert Path(there.path, "src", "own").read_text() == "stays"


@pytest.mark.parametrize("obstacle", ["file", "link", "link out"])
def test_tree_replaces_only_trees(here: WorkspaceRoot, there: WorkspaceRoot, obstacle: str) -> None:
    aside = Path(there.path).parent / "aside"
    aside.mkdir()
    place = Path(there.path, "src")
    match obstacle:
        case "file":
            place.write_text("kept")
        case "link":
            Path(there.path, "dir").mkdir()
            place.symlink_to("dir")
        case _:
            place.symlink_to(aside)
    before = looks(os.fsencode(there.path))
    data, _ = packed(here, "src")
    with pytest.raises(WorkspaceArchiveWriteError, match="src"):
        unpack(there, ".", data)
    assert looks(os.fsencode(there.path)) == before
    assert os.listdir(aside) == []


def test_hostile_archive_stays_inside(there: WorkspaceRoot) -> None:
    aside = Path(there.path).parent / "aside"
    aside.mkdir()
    for members in (
        [symlink("out", str(aside)), item("out/file", b"x")],
        [item("../aside/file", b"x")],
        [item(f"{aside}/file", b"x")],
    ):
        with pytest.raises(WorkspaceArchiveWriteError):
            unpack(there, ".", tar_of(*members))
    assert os.listdir(aside) == []
    assert os.listdir(there.path) == []


def test_impossible_paths(here: WorkspaceRoot, there: WorkspaceRoot) -> None:
    with pytest.raises(WorkspaceReadNotFoundError):
        packed(here, "nothing")
    with pytest.raises(InvalidManifestPathError):
        packed(here, "src/absolute")
    with pytest.raises(InvalidManifestPathError):
        packed(here, "../there")
    for name in ("a/b", "..", "nul\0"):
        with pytest.raises(ArgumentError):
            packed(here, "src", name)
    with pytest.raises(ArgumentError):
        packed(here, "src/hard", "")
    data, _ = packed(here, "src")
    for path in ("nothing", "../here"):
        with pytest.raises((WorkspaceArchiveWriteError, InvalidManifestPathError)):
            unpack(there, path, data)
    assert os.listdir(there.path) == []


def test_outer_links_are_left_out(here: WorkspaceRoot, there: WorkspaceRoot) -> None:
    src = Path(here.path, "src")
    (src / "sub" / "up").symlink_to("../hard")
    (src / "self").symlink_to(".")
    (src / "through").symlink_to("self/..")  # out, though its words stay
    with pack_part(here, "src", None, outer_links=False) as archive:
        unpack(there, ".", archive)
    assert archive.report is not None
    assert {note.path for note in archive.report.skipped} == {"absolute", "dangling", "through"}
    assert {note.reason for note in archive.report.skipped} == {"link_leads_out"}
    assert Path(there.path, "src", "sub", "up").read_bytes() == b"content"
    Path(there.path, "src", "sub", "empty").chmod(0o700)


def test_what_has_no_content_is_told(here: WorkspaceRoot) -> None:
    os.mkfifo(os.path.join(here.path, "src", "pipe"))
    assert packed(here, "src")[1].skipped == (ArchiveNote("pipe", "fifo"),)
    assert packed(here, "src/pipe")[1].skipped == (ArchiveNote(".", "fifo"),)


def test_unfinished_leaves_nothing(here: WorkspaceRoot, there: WorkspaceRoot) -> None:
    data, _ = packed(here, "src")
    with pytest.raises(WorkspaceArchiveWriteError):
        unpack(there, ".", data[: len(data) // 2])
    stopped = Event()
    stopped.set()
    with pytest.raises(Abandoned):
        unpack_into(there, ".", data, None, stopped)
    assert os.listdir(there.path) == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_none_is_taken_for_whole(here: WorkspaceRoot, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("sandyard.workspace.persist_stream.Saving.run", die)
    with pack_part(here, "src", None) as archive:
        for _ in range(2):
            with pytest.raises(WorkspaceArchiveReadError, match="has failed"):
                archive.read()
