"""What is saved restores exactly, and what could not be saved is told."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandyard.archive.report import ArchiveNote, ArchiveReport
from sandyard.errors import WorkspaceArchiveReadError, WorkspaceArchiveWriteError
from sandyard.workspace import WorkspaceRoot
from sandyard.workspace.extract import Extraction, extract_archive, hydrate_workspace
from sandyard.workspace.persist_stream import WorkspaceArchive, persist_workspace
from tests.archive.making import WRAPS, directory, hard_link, item, symlink, tar_of
from tests.workspace.sample import fill, looks


def save(root: WorkspaceRoot, *excluded: tuple[bytes, ...]) -> tuple[bytes, ArchiveReport]:
    with persist_workspace(root, frozenset(excluded)) as archive:
        data = archive.read()
        assert archive.report is not None
        return data, archive.report


def restore(root: WorkspaceRoot, data: object) -> ArchiveReport:
    return hydrate_workspace(root, data, None, Event())


@contextmanager
def another(tmp_path: Path) -> Iterator[WorkspaceRoot]:
    (tmp_path / "another").mkdir()
    with WorkspaceRoot.open(tmp_path / "another") as opened:
        yield opened


def test_what_was_saved_restores(root: WorkspaceRoot, base: Path, tmp_path: Path) -> None:
    fill(base)
    data, report = save(root)
    assert (report.skipped, report.changed, report.dropped) == ((), (), ())
    with another(tmp_path) as other:
        restored = restore(other, data)
        assert looks(os.fsencode(other.path)) == looks(os.fsencode(base))
        assert (tmp_path / "another/sparse").stat().st_blocks < 2000
        assert save(other) == (data, report)
    assert (restored.files, restored.hard_links) == (report.files, report.hard_links)


def test_far_times_restore(root: WorkspaceRoot, base: Path, tmp_path: Path) -> None:
    """Commands may set any time; 64 bits of nanoseconds end in the year 2262."""
    (base / "future").touch()
    (base / "directory").mkdir()
    for name in ("future", "directory"):
        os.utime(base / name, ns=(1, (2**34 - 1) * 10**9))
    with another(tmp_path) as other:
        restore(other, save(root)[0])
        assert looks(os.fsencode(other.path)) == looks(os.fsencode(base))


def test_restoring_over_what_is_there(root: WorkspaceRoot, base: Path, tmp_path: Path) -> None:
    fill(base)
    data, _ = save(root)
    with another(tmp_path) as other:
        restore(other, data)
        (tmp_path / "another/d/tool").write_bytes(b"changed")
        (tmp_path / "another/extra").write_bytes(b"stays")
        (tmp_path / "another/d/empty").rmdir()
        (tmp_path / "another/d/empty").write_bytes(b"in the way")
        restore(other, io.BytesIO(data))
        (tmp_path / "another/extra").unlink()
        os.utime(tmp_path / "another", ns=(1, 1_000_000_001))
        assert looks(os.fsencode(other.path)) == looks(os.fsencode(base))


def test_other_tools_read_it(root: WorkspaceRoot, base: Path, tmp_path: Path) -> None:
    fill(base)
    (tmp_path / "another").mkdir()
    words = ["tar", "-xp", "--xattrs", "-C", str(tmp_path / "another")]
    subprocess.run(words, input=save(root)[0], check=True)
    assert looks(os.fsencode(tmp_path / "another")) == looks(os.fsencode(base))
    with tarfile.open(fileobj=io.BytesIO(save(root)[0])) as archive:
        assert all(
            (each.uid, each.gid, each.uname, each.gname) == (0, 0, "", "") for each in archive
        )


@pytest.mark.parametrize("wrap", WRAPS)
def test_others_archives_are_restored(root: WorkspaceRoot, base: Path, wrap: str) -> None:
    data = tar_of(directory("./"), item("./a/b", b"x"), symlink("./l", "/abs"))
    report = restore(root, WRAPS[wrap](data))
    assert (report.files, report.symlinks) == (1, 1)
    assert (base / "a/b").read_bytes() == b"x"


def test_what_is_left_out_is_told(root: WorkspaceRoot, base: Path) -> None:
    os.mkfifo(base / "fifo")
    (base / "tool").touch()
    (base / "tool").chmod(0o4755)
    (base / "cache/deep").mkdir(parents=True)
    (base / "cache/deep/file").touch()
    (base / ".sandyard-0123456789abcdef.stage").mkdir()
    (base / "kept").touch()
    data, report = save(root, (b"cache", b"deep"), (b"missing",))
    assert report.skipped == (
        ArchiveNote(".sandyard-0123456789abcdef.stage", "temporary"),
        ArchiveNote("cache/deep", "excluded"),
        ArchiveNote("fifo", "fifo"),
    )
    assert report.dropped == (ArchiveNote("tool", "setuid"),)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert [each.name for each in archive] == [".", "./cache", "./kept", "./tool"]
        assert archive.getmember("./tool").mode == 0o755


@pytest.mark.user
def test_what_may_not_be_read_is_told(root: WorkspaceRoot, base: Path) -> None:
    (base / "shut").mkdir(0o000)
    (base / "secret").touch(0o000)
    (base / "kept").touch()
    _, report = save(root)
    (base / "shut").chmod(0o700)
    assert report.skipped == (
        ArchiveNote("secret", "unreadable"),
        ArchiveNote("shut", "unreadable"),
    )
    assert report.files == 1


CHANGES: dict[str, Callable[[Path], object]] = {
    "shrank": lambda path: os.truncate(path, 1_000_000),
    "grew": lambda path: os.truncate(path, 9_000_000),
    "changed": lambda path: os.utime(path, ns=(1, 1)),
}


@pytest.mark.parametrize("what", CHANGES)
def test_changes_do_not_abort(root: WorkspaceRoot, base: Path, what: str) -> None:
    """The pipe holds less than the file, so that it is still open when it changes."""
    (base / "f").write_bytes(b"x" * 8_000_000)
    (base / "z").write_bytes(b"later")
    with persist_workspace(root, frozenset()) as archive:
        head = archive.read(100_000)
        CHANGES[what](base / "f")
        data = head + archive.read()
        assert archive.report is not None
        assert archive.report.changed == (ArchiveNote("f", what),)
    with tarfile.open(fileobj=io.BytesIO(data)) as saved:
        assert saved.getmember("./f").size == 8_000_000
        later = saved.extractfile("./z")
        assert later is not None
        assert later.read() == b"later"


def test_what_vanishes_does_not_abort(root: WorkspaceRoot, base: Path) -> None:
    (base / "a").write_bytes(b"x" * 2_000_000)
    (base / "b").touch()
    (base / "c").mkdir()
    with persist_workspace(root, frozenset()) as archive:
        head = archive.read(100_000)
        (base / "b").unlink()
        (base / "c").rmdir()
        (base / "c").touch()
        assert len(head + archive.read()) > 2_000_000
        assert archive.report is not None
        assert archive.report.skipped == (ArchiveNote("b", "vanished"),)


def test_a_workspace_that_is_removed_is_no_archive(root: WorkspaceRoot, base: Path) -> None:
    (base / "a").write_bytes(b"x" * 2_000_000)
    with persist_workspace(root, frozenset()) as archive:
        archive.read(100_000)
        (base / "a").unlink()
        base.rmdir()
        with pytest.raises(WorkspaceArchiveReadError) as caught:
            archive.read()
        assert caught.value.context["reason"] == "workspace_root_not_found"
    with pytest.raises(WorkspaceArchiveReadError) as caught:
        persist_workspace(root, frozenset())
    assert caught.value.context["reason"] == "workspace_root_not_found"


def test_closed_early_it_ends(root: WorkspaceRoot, base: Path) -> None:
    (base / "a").write_bytes(b"x" * 5_000_000)
    with persist_workspace(root, frozenset()) as archive:
        archive.read(10)
    assert archive.report is None
    archive.close()
    begun = persist_workspace(root, frozenset())
    assert isinstance(begun, WorkspaceArchive)
    begun.close()


REFUSED = {
    "truncated": (tar_of(item("f", b"x" * 999))[:700], "archive is truncated"),
    "traversal": (tar_of(item("../f")), "parent traversal"),
    "absolute": (tar_of(item("/f")), "absolute path"),
    "twice": (tar_of(item("f"), item("f")), "duplicate archive path: f"),
    "through a link": (
        tar_of(symlink("l", "/tmp"), item("l/f")),
        "archive path descends through symlink: l",
    ),
    "hard link out": (tar_of(hard_link("h", "../bait/secret")), "parent traversal"),
    "hard link through a link": (
        tar_of(symlink("l", "../bait"), hard_link("h", "l/secret")),
        "hard link to what is no earlier file of the archive: l/secret",
    ),
    "onto a directory": (tar_of(item("d", b"x")), "destination is a directory: d"),
    "no archive": (b"PK\x03\x04" + bytes(600), "the content is no archive of a known format"),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.usefixtures("bait")
def test_refused_is_not_restored(root: WorkspaceRoot, base: Path, case: str) -> None:
    (base / "d").mkdir()
    (base / "f").write_bytes(b"before")
    before = looks(os.fsencode(base))
    data, reason = REFUSED[case]
    with pytest.raises(WorkspaceArchiveWriteError) as caught:
        restore(root, data)
    assert caught.value.context["reason"] == reason
    assert looks(os.fsencode(base)) == before


NAME = st.binary(min_size=1, max_size=40).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in {b".", b".."}
)
TREES = st.recursive(
    st.one_of(
        st.tuples(st.binary(max_size=1500), st.integers(0o400, 0o777).map(lambda m: m | 0o400)),
        st.binary(min_size=1, max_size=60).filter(lambda target: b"\0" not in target),
    ),
    lambda below: st.dictionaries(NAME, below, max_size=4),
    max_leaves=12,
)


def plant(path: bytes, tree: object) -> None:
    match tree:
        case dict():
            os.makedirs(path, exist_ok=True)
            for name, below in tree.items():
                plant(os.path.join(path, name), below)
        case bytes():
            os.symlink(tree, path)
        case (bytes(content), int(mode)):
            with open(path, "wb") as file:
                file.write(content)
            os.chmod(path, mode)


@given(st.dictionaries(NAME, TREES, max_size=4))
def test_any_tree_restores(tmp_path_factory: pytest.TempPathFactory, tree: object) -> None:
    base, copy = tmp_path_factory.mktemp("base"), tmp_path_factory.mktemp("copy")
    plant(os.fsencode(base), tree)
    with WorkspaceRoot.open(base) as root, WorkspaceRoot.open(copy) as other:
        restore(other, save(root)[0])
    assert looks(os.fsencode(copy)) == looks(os.fsencode(base))


class Large(io.RawIOBase):
    """A tar archive of one large file, as a stream that is never in memory."""

    def __init__(self, size: int) -> None:
        member = tarfile.TarInfo("large")
        member.size = size
        self._head = member.tobuf(tarfile.GNU_FORMAT)
        self._left = len(self._head) + size + 1024

    def read(self, size: int = -1) -> bytes:
        if self._head:
            head, self._head = self._head, b""
            self._left -= len(head)
            return head
        size = min(size, self._left)
        self._left -= size
        return bytes(size)


def test_memory_does_not_grow_with_size(root: WorkspaceRoot) -> None:
    size = 48 * 1024 * 1024
    tracemalloc.start()
    try:
        restore(root, Large(size))
        with persist_workspace(root, frozenset()) as archive:
            total = sum(iter(lambda: len(archive.read(100_000)), 0))
        extract_archive(root, "d/a.tar", Large(size), Extraction())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert total > size
    assert peak < 4 * 1024 * 1024
