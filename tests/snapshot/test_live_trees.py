"""Directories that are saved while they change or the program is killed; odd names, sizes and clocks."""

from __future__ import annotations

import asyncio
import io
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from sandyard.archive.model import Kind
from sandyard.archive.trees import Node, decode_nodes, encode_nodes
from sandyard.snapshot.records import Snapshot
from sandyard.snapshot.saving import Saver
from sandyard.snapshot.store import SnapshotStore
from sandyard.workspace import WorkspaceRoot
from sandyard.workspace.extract import restore_members
from sandyard.workspace.persist_saving import save_tree
from sandyard.workspace.stat_index import IndexWriter, Looks, StatIndex
from tests.snapshot.breaking import Breaking, full, killed
from tests.snapshot.trees import archive_of, files_of
from tests.workspace.sample import fill, looks


class Watched:
    """A saver that has something done each time it is given a content."""

    def __init__(self, saver: Saver, act: Callable[[], None]) -> None:
        self._saver = saver
        self._act = act

    @property
    def as_program(self) -> Callable[[], AbstractContextManager[None]]:
        return self._saver.as_program

    @as_program.setter
    def as_program(self, acting: Callable[[], AbstractContextManager[None]]) -> None:
        self._saver.as_program = acting

    def put(self, data: bytes | bytearray) -> bytes:
        self._act()
        return self._saver.put(data)

    def put_run(self, run: memoryview, objects: list[tuple[bytes, int]]) -> None:
        self._act()
        self._saver.put_run(run, objects)

    def put_pieces(self, pieces: Iterable[bytes]) -> bytes:
        self._act()
        return self._saver.put_pieces(pieces)

    def directory(self, digest: bytes) -> bytes | None:
        return self._saver.directory(digest)

    def entries_of(self, digest: bytes) -> dict[bytes, bytes] | None:
        return self._saver.entries_of(digest)


def save(store: SnapshotStore, base: Path, act: Callable[[], None] = lambda: None) -> Snapshot:
    """Save a directory as a session does."""
    with (
        WorkspaceRoot.open(base) as root,
        store.saving("tree") as saver,
        store.noted("tree") as noted,
        store.noting("tree") as noting,
    ):
        before, after = StatIndex(noted.size, noted.read_at), IndexWriter(noting.write)
        if not saver.trusts(before.tree):
            before = StatIndex()
        intake = Watched(saver, act)
        asked = Looks(before, after), frozenset[tuple[bytes, ...]](), threading.Event()
        saved = save_tree(root, intake, *asked)
        made = saver.finish(saved.top, saved.report)
        after.finish(made.tree)
        noting.publish()
    return made


def restored(store: SnapshotStore, snapshot: Snapshot, place: Path) -> dict[bytes, object]:
    place.mkdir()
    with WorkspaceRoot.open(place) as root, store.reading(snapshot.id) as reader:
        restore_members(root, reader.members(snapshot.tree), threading.Event())
    return dict(looks(os.fsencode(place)))


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("how", "step"),
    [
        (killed, 5),
        pytest.param(killed, 1, marks=pytest.mark.soak),
        pytest.param(full, 1, marks=pytest.mark.soak),
    ],
)
def test_tree_save_broken(tmp_path: Path, how: Callable[[], None], step: int) -> None:
    """Before each change of a save: what was acknowledged restores, and the next save misses nothing."""
    base = tmp_path / "base"
    base.mkdir()
    fill(base)
    old = SnapshotStore(tmp_path / "old")
    first, want = save(old, base), looks(os.fsencode(base))
    (base / "d/empty/new").write_bytes(b"new" * 200_000)
    (base / "large").write_bytes(b"other" * 50_000)
    point, reached = 0, True
    while reached:
        copy = tmp_path / f"copy{point}"
        shutil.copytree(tmp_path / "old", copy)
        reached = _save_broken(copy, base, point, how)
        store = SnapshotStore(copy)
        health = asyncio.run(store.verify())
        assert health.ok, health.damage
        assert restored(store, first, tmp_path / f"first{point}") == want
        again = save(store, base)
        assert restored(store, again, tmp_path / f"again{point}") == looks(os.fsencode(base))
        assert not [path for path in files_of(store) if "/tmp-" in path]
        point += step
    assert point > 9


def _save_broken(store: Path, base: Path, point: int, how: Callable[[], None]) -> bool:
    """Save where the n-th change breaks; tell whether it came to that."""
    pid = os.fork()
    if pid == 0:
        disk = Breaking(point, how, removes=how is killed)
        try:
            save(SnapshotStore(store, disk=disk), base)
        finally:
            os._exit(1 if disk.reached else 0)
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    return os.waitstatus_to_exitcode(status) != 0


def test_what_moves_is_told(tmp_path: Path, store: SnapshotStore) -> None:
    """Files that vanish, grow, shrink, or become something else while they are saved stop no save."""
    base = tmp_path / "base"
    base.mkdir()
    for name in ("a", "grows", "shrinks", "vanishes", "turns"):
        (base / name).write_bytes(name.encode() * 200_000)
    (base / "z").mkdir()
    (base / "z/file").write_bytes(b"z")
    acts = [True]

    def disturb() -> None:
        if not acts:
            return
        acts.clear()
        with open(base / "grows", "ab") as file:
            file.write(b"more")
        os.truncate(base / "shrinks", 5)
        os.unlink(base / "vanishes")
        os.unlink(base / "turns")
        (base / "turns").mkdir()
        shutil.rmtree(base / "z")
        (base / "z").write_bytes(b"now a file")

    made = save(store, base, disturb)
    assert not acts
    assert asyncio.run(store.verify()).ok
    told = {note.path for note in (*made.skipped, *made.changed)}
    assert told >= {"vanishes", "turns", "z"}
    back = restored(store, made, tmp_path / "back")
    assert set(back) == {b"", b"a", b"grows", b"shrinks"}
    assert (tmp_path / "back/shrinks").read_bytes() == b"shrin"
    second = save(store, base)
    assert restored(store, second, tmp_path / "again") == looks(os.fsencode(base))


def test_shrinks_while_read(tmp_path: Path, store: SnapshotStore) -> None:
    base = tmp_path / "base"
    base.mkdir()
    (base / "log").write_bytes(os.urandom(3_000_000))
    made = save(store, base, lambda: os.truncate(base / "log", 1_000))
    assert [(note.path, note.reason) for note in made.changed] == [("log", "shrank")]
    assert asyncio.run(store.verify()).ok
    assert restored(store, made, tmp_path / "back")
    again = save(store, base)
    assert restored(store, again, tmp_path / "again") == looks(os.fsencode(base))


def test_names_of_every_byte(tmp_path: Path, store: SnapshotStore) -> None:
    base = os.fsencode(tmp_path / "base")
    os.mkdir(base)
    for number in set(range(1, 256)) - set(b"/."):
        name = bytes([number])
        os.mkdir(os.path.join(base, name))
        os.symlink(name * 100, os.path.join(base, name, b"." + name * 200))
        os.close(os.open(os.path.join(base, name + b"x"), os.O_CREAT))
    made = save(store, tmp_path / "base")
    assert not made.skipped
    assert restored(store, made, tmp_path / "back") == looks(base)


def test_huge_hole(tmp_path: Path, store: SnapshotStore) -> None:
    """A file of 10 GB with three bytes in it takes neither time nor room."""
    base, size = tmp_path / "base", 10 * 1024**3
    base.mkdir()
    places = (0, size // 2 + 1, size - 1)
    with open(base / "disk", "wb") as file:
        file.truncate(size)
        for at in places:
            os.pwrite(file.fileno(), b"x", at)
    made = save(store, base)
    assert (made.files, made.size) == (1, size)
    assert sum(map(len, files_of(store).values())) < 100_000
    (tmp_path / "back").mkdir()
    with WorkspaceRoot.open(tmp_path / "back") as root, store.reading(made.id) as reader:
        restore_members(root, reader.members(made.tree), threading.Event())
    facts = (tmp_path / "back/disk").stat()
    assert (facts.st_size, facts.st_blocks < 200) == (size, True)
    with open(tmp_path / "back/disk", "rb") as file:
        assert [os.pread(file.fileno(), 2, at)[:1] for at in places] == [b"x"] * 3


def test_clock_goes_back(
    tmp_path: Path, store: SnapshotStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest is the one that was saved last, whatever the clock says."""
    made = []
    for number, now in enumerate((2e9, 1e9, 1.5e9, 0.0)):
        monkeypatch.setattr("time.time", lambda now=now: now)
        archive = io.BytesIO(archive_of({"n": b"%d" % number}))
        made.append(store.take_tar("one", archive.read))
    known = asyncio.run(store.list("one"))
    assert [each.id for each in known] == [each.id for each in made]
    assert store.last_of("one") == made[-1]
    done = asyncio.run(store.prune(max_count=2))
    assert set(done.removed) == {made[0].id, made[1].id}
    assert asyncio.run(store.prune(max_age=1)).removed == ()  # of the future is not old
    assert asyncio.run(store.verify()).snapshots == 2


def test_far_times(tmp_path: Path, store: SnapshotStore) -> None:
    """Commands may set any time; 64 bits of nanoseconds end in the year 2262."""
    base = tmp_path / "base"
    (base / "directory").mkdir(parents=True)
    (base / "link").symlink_to("nowhere")
    (base / "past").touch()
    (base / "future").touch()
    for name, second in (("past", -(2**31)), *((name, 2**34 - 1) for name in ("future", "link"))):
        os.utime(base / name, ns=(1, second * 10**9), follow_symlinks=False)
    os.utime(base / "directory", ns=(1, 2**33 * 10**9))
    assert (base / "future").stat().st_mtime_ns > 2**63
    made = save(store, base)
    assert restored(store, made, tmp_path / "back") == looks(os.fsencode(base))
    assert save(store, base) == made
    times = [sign * time for sign in (1, -1) for time in (0, 2**63 - 1, 2**63, 2**63 + 1, 2**90)]
    nodes = [Node(b"%02d" % at, Kind.FILE, 0o600, time) for at, time in enumerate(times)]
    assert decode_nodes(encode_nodes(nodes)) == nodes


@pytest.mark.root
def test_owner_may_not_read_store(tmp_path: Path, store: SnapshotStore) -> None:
    """Files are read and made as the workspace's owner, packs are opened as this program."""
    base, again = tmp_path / "base", tmp_path / "again"
    base.mkdir()
    again.mkdir()
    (base / "file").write_bytes(b"content")
    for path in (base, again, base / "file"):
        os.chown(path, 4321, 4321)
    snapshot = save(store, base)
    assert save(store, base).id == snapshot.id
    with WorkspaceRoot.open(again) as root, store.reading(snapshot.id) as reader:
        members = reader.members(snapshot.tree)
        restore_members(root, members, threading.Event(), reader=reader)
    assert (again / "file").read_bytes() == b"content"
    assert (again / "file").stat().st_uid == 4321
