"""Saving again: whatever changed is seen, what did not is not read, and all of it restores exactly."""

from __future__ import annotations

import hashlib
import os
import random
import threading
import tracemalloc
from contextlib import nullcontext
from typing import TYPE_CHECKING, NamedTuple

import pytest

from sandyard.archive.model import Kind
from sandyard.archive.trees import (
    Node,
    decode_nodes,
    encode_file,
    encode_node,
    encode_nodes,
    entries_in,
)
from sandyard.errors import WorkspaceArchiveReadError
from sandyard.workspace import WorkspaceRoot
from sandyard.workspace.extract import restore_members
from sandyard.workspace.persist_saving import save_tree
from sandyard.workspace.persist_tree import TreeSaving
from sandyard.workspace.stat_index import IndexWriter, Known, Looks, StatIndex, clock_now
from tests.workspace.sample import fill, looks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from sandyard.archive.report import ArchiveReport
    from sandyard.snapshot.store import SnapshotStore
    from sandyard.workspace.extract_tree import Directories
    from sandyard.workspace.persist_frame import Frame


class Memory:
    """An intake that keeps everything, and counts what it is given."""

    def __init__(self) -> None:
        self.held: dict[bytes, bytes] = {}
        self.given = 0
        self.as_program: Callable[[], AbstractContextManager[None]] = nullcontext

    def put(self, data: bytes | bytearray) -> bytes:
        self.given += 1
        digest = hashlib.sha256(data).digest()
        self.held[digest] = bytes(data)
        return digest

    def put_run(self, run: memoryview, objects: list[tuple[bytes, int]]) -> None:
        at = 0
        for digest, size in objects:
            assert self.put(bytes(run[at : at + size])) == digest
            at += size

    def put_pieces(self, pieces: Iterable[bytes]) -> bytes:
        return self.put(b"".join(pieces))

    def directory(self, digest: bytes) -> bytes | None:
        return self.held.get(digest)

    def entries_of(self, digest: bytes) -> dict[bytes, bytes] | None:
        return entries_in(self.held[digest]) if digest in self.held else None


@pytest.fixture
def base(tmp_path: Path) -> Path:
    top = tmp_path / "base"
    top.mkdir()
    return top


@pytest.fixture
def root(base: Path) -> Iterator[WorkspaceRoot]:
    with WorkspaceRoot.open(base) as opened:
        yield opened


class Saved(NamedTuple):
    """A tree that was saved, and the index of it."""

    top: Node
    report: ArchiveReport
    looks: bytes


def index_of(raw: bytes) -> StatIndex:
    return StatIndex(len(raw), lambda size, at: raw[at : at + size] if at >= 0 else b"")


def save(
    root: WorkspaceRoot, intake: Memory, before: bytes = b"", *excluded: tuple[bytes]
) -> Saved:
    noted = bytearray()
    looks = Looks(index_of(before), IndexWriter(noted.extend))
    saved = save_tree(root, intake, looks, frozenset(excluded), threading.Event())
    looks.after.finish("ab" * 32)
    return Saved(saved.top, saved.report, bytes(noted))


def settle(base: Path) -> None:
    """Let the clock by which files change go on, so that what is there looks settled."""
    probe = base.parent / "probe"
    probe.touch()
    while clock_now() <= probe.stat().st_ctime_ns:
        pass  # a tick takes some milliseconds


def test_everything_restores(
    root: WorkspaceRoot, base: Path, tmp_path: Path, store: SnapshotStore
) -> None:
    fill(base)
    with store.saving("one") as saver:
        looks_ = Looks(StatIndex(), IndexWriter(lambda _: None))
        saved = save_tree(root, saver, looks_, frozenset(), threading.Event())
        snapshot = saver.finish(saved.top, saved.report)
    (tmp_path / "again").mkdir()
    with WorkspaceRoot.open(tmp_path / "again") as again, store.reading(snapshot.id) as reader:
        report = restore_members(again, reader.members(snapshot.tree), threading.Event())
    assert looks(os.fsencode(tmp_path / "again")) == looks(os.fsencode(base))
    assert (tmp_path / "again/sparse").stat().st_blocks * 512 < 1_000_000
    assert (report.files, report.hard_links) == (snapshot.files, snapshot.hard_links)


def test_same_is_not_read(root: WorkspaceRoot, base: Path) -> None:
    fill(base)
    settle(base)
    intake = Memory()
    first = save(root, intake)
    intake.given = 0
    second = save(root, intake, first.looks)
    assert (second.top, second.report) == (first.top, first.report)
    assert intake.given == 2  # directories with files that have several names: the top, and d
    (base / "d/empty/new").write_bytes(b"new")
    intake.given = 0
    third = save(root, intake, second.looks)
    assert intake.given == 4  # and the file, and its directory
    assert third.report.files == first.report.files + 1


def mutate(base: Path, chance: random.Random) -> str:
    """Change something, as quietly as it can be done."""
    files = sorted(path for path in base.rglob("*") if path.is_file() and not path.is_symlink())
    folders = [base, *sorted(path for path in base.rglob("*") if path.is_dir())]
    kind = chance.choice(("write", "mkdir", "symlink", "quiet", "remove", "link", "move", "touch"))
    new = chance.choice(folders) / f"{kind}{chance.randrange(6)}"
    if kind in {"write", "mkdir", "symlink"} or not files:
        make(kind, new, chance)
    else:
        disturb(kind, chance.choice(files), new, chance)
    return f"{kind} {new}"


def make(kind: str, new: Path, chance: random.Random) -> None:
    if kind == "write":
        new.write_bytes(chance.randbytes(chance.randrange(40)))
    elif not os.path.lexists(new):
        (new.mkdir if kind == "mkdir" else lambda: new.symlink_to("somewhere"))()


def disturb(kind: str, file: Path, new: Path, chance: random.Random) -> None:
    facts = file.stat()
    if kind == "quiet":  # other bytes, the same size and time
        file.write_bytes(chance.randbytes(facts.st_size))
        os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    elif kind == "remove":
        file.unlink()
    elif kind == "move":
        file.rename(new)
    elif kind == "touch":
        file.chmod(chance.choice([0o600, 0o755, 0o444]))
        os.utime(file, ns=(1, chance.randrange(10**18)))
    elif not os.path.lexists(new):
        os.link(file, new)


@pytest.mark.parametrize("seed", range(6))
def test_every_change_is_seen(root: WorkspaceRoot, base: Path, seed: int) -> None:
    """What is saved by what is known is what is saved by reading everything."""
    chance = random.Random(seed)  # noqa: S311  # the same each time, and no secret
    intake, known, last = Memory(), b"", ""
    for _ in range(60):
        for _ in range(chance.randrange(3)):
            last = mutate(base, chance)
        saved = save(root, intake, known)
        whole = save(root, Memory())
        assert saved.top == whole.top, last
        assert saved.report == whole.report
        known = saved.looks


def test_what_is_left_out_may_change(root: WorkspaceRoot, base: Path) -> None:
    fill(base)
    settle(base)
    intake = Memory()
    first = save(root, intake)
    without = save(root, intake, first.looks, (b"d",))
    assert without.top == save(root, Memory(), b"", (b"d",)).top
    assert [note.reason for note in without.report.skipped] == ["excluded"]
    assert save(root, intake, without.looks).top == first.top


def test_notes_are_told_again(root: WorkspaceRoot, base: Path) -> None:
    os.mkfifo(base / "pipe")
    (base / "tool").touch(mode=0o4755)
    (base / "tool").chmod(0o4755)
    settle(base)
    intake = Memory()
    first = save(root, intake)
    assert [note.reason for note in first.report.skipped] == ["fifo"]
    assert [note.reason for note in first.report.dropped] == ["setuid"]
    assert save(root, intake, first.looks).report == first.report


def test_lost_directory_is_read(root: WorkspaceRoot, base: Path) -> None:
    """A store that can't read a directory back gets its files anew."""
    fill(base)
    settle(base)
    first = save(root, Memory())
    (base / "d/empty/new").touch()
    fresh = Memory()
    assert save(root, fresh, first.looks).top == save(root, Memory()).top


def deep_tree(base: Path) -> None:
    """Directories with looks of their own, and a file beneath them."""
    deep = base / "a/b/c"
    deep.mkdir(parents=True)
    (base / "a/b/beside").mkdir()
    (deep / "file").write_bytes(b"one")
    for number, path in enumerate((deep, base / "a/b/beside", base / "a/b", base / "a")):
        os.setxattr(path, "user.number", b"%d" % number)
        path.chmod(0o700 + number)
        os.utime(path, ns=(number, number))


@pytest.mark.parametrize("lost", [False, True])
def test_directories_keep_their_looks(root: WorkspaceRoot, base: Path, *, lost: bool) -> None:
    """What a directory is like is saved also where only something far beneath it has changed."""
    deep_tree(base)
    settle(base)
    intake = Memory()
    first = save(root, intake)
    if lost:
        intake.held.clear()
    (base / "a/b/c/file").write_bytes(b"two")
    again = save(root, intake, first.looks)
    assert again.top == save(root, Memory()).top != first.top
    assert again.report == first.report


def test_swapped_directory_is_not_taken(
    root: WorkspaceRoot, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is told of a directory that came into another's place while that was saved."""
    deep_tree(base)
    settle(base)
    first = save(root, intake := Memory())
    intake.held.clear()
    (base / "a/b/c/file").write_bytes(b"two")
    leave = TreeSaving._leave  # noqa: SLF001

    def leaving(saving: TreeSaving, tree: Directories, frame: Frame) -> bytes:
        if frame.key == b"a/b":
            tree.close()
            (base / "a/b/beside").rename(base / "old")
            (base / "a/b/beside").mkdir()
        return leave(saving, tree, frame)

    monkeypatch.setattr(TreeSaving, "_leave", leaving)
    again = save(root, intake, first.looks)
    assert again.report.skipped == (("a/b/beside", "vanished"),)
    monkeypatch.undo()
    assert save(root, intake, again.looks).top == save(root, Memory()).top


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may set such an attribute")
def test_directory_notes_are_told_again(root: WorkspaceRoot, base: Path) -> None:
    deep_tree(base)
    os.setxattr(base / "a/b", "trusted.mine", b"1")
    settle(base)
    first = save(root, intake := Memory())
    assert first.report.dropped == (("a/b", "xattr trusted.mine"),)
    second = save(root, intake, first.looks)
    assert save(root, intake, second.looks).report == second.report == first.report


def test_removed_workspace_is_told(root: WorkspaceRoot, base: Path) -> None:
    base.rmdir()
    with pytest.raises(WorkspaceArchiveReadError):
        save(root, Memory())


def test_index_knows_directories_of_any_size() -> None:
    noted, sizes = bytearray(), [*range(0, 300_000, 4_001), *range(0, 300_000, 7_003)]
    writer = IndexWriter(noted.extend)
    for number, size in enumerate(sizes):
        writer.add(b"%d" % number, Known(bytes(32), False, b"%d" % number + bytes(size)))
    writer.finish("ab" * 32)
    index = index_of(bytes(noted))
    for order in (range(len(sizes)), reversed(range(len(sizes)))):
        for number in order:
            known = index.get(b"%d" % number)
            assert known is not None
            assert known.looks == b"%d" % number + bytes(sizes[number])


def test_broken_index_reads_all(root: WorkspaceRoot, base: Path) -> None:
    """Whichever byte of an index is flipped: a directory is known as it was, or not at all."""
    fill(base)
    settle(base)
    raw = save(root, Memory()).looks
    whole = index_of(raw)
    paths = [b"", b"d", b"d/empty", b"shut", b"n" * 200]
    want = {path: whole.get(path) for path in paths}
    assert None not in want.values()
    assert len(whole) == len(paths) + 1
    assert whole.get(b"missing") is None
    unknown = 0
    for at in range(0, len(raw), 5):
        torn = index_of(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
        for path in paths:
            known = torn.get(path)
            assert known in (None, want[path])
            unknown += known is None
    assert unknown > 100
    for cut in range(0, len(raw), 7):
        assert len(index_of(raw[:cut])) == 0
    assert encode_nodes([])
    assert not decode_nodes(encode_nodes([]))


def test_odd_times_are_known(root: WorkspaceRoot, base: Path) -> None:
    """What was changed before 1970 is not read again either, and all restores as it was."""
    fill(base)
    (base / "d/empty/old").write_bytes(b"old")
    os.utime(base / "d/empty/old", ns=(-1, -(10**9)))
    os.utime(base / "d/empty", ns=(-1, -5))
    settle(base)
    intake = Memory()
    first = save(root, intake)
    intake.given = 0
    assert save(root, intake, first.looks).top == first.top == save(root, Memory()).top
    assert intake.given == 2  # directories with files that have several names


@pytest.mark.parametrize("mtime", [0, -1, 2**63 - 1, 2**63, -(2**63) - 1])
@pytest.mark.parametrize("digest", [b"", b"d" * 32])
def test_plain_file_is_written_as_any(mtime: int, digest: bytes) -> None:
    node = Node(b"name", Kind.FILE, 0o640, mtime, 7 if digest else 0, digest)
    assert encode_file(b"name", 0o640, mtime, node.size, digest) == encode_node(node)


def test_large_directory_takes_little_memory(root: WorkspaceRoot, base: Path) -> None:
    """What is held for each entry of one directory are some bytes, and no objects."""
    count = 5_000
    for number in range(count):
        (base / f"file{number}").touch()
    settle(base)
    tracemalloc.start()
    try:
        first = save(root, intake := Memory())
        size = tracemalloc.get_traced_memory()[1]
        (base / "file7").write_bytes(b"new")
        intake.held = {first.top.digest: intake.held[first.top.digest]}
        tracemalloc.reset_peak()
        again = save(root, intake, first.looks)
        more = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert again.report.files == count
    assert size / count < 420
    assert more / count < 480
