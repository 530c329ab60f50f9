"""A store whose program is killed, or whose disk is full, at every change: nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import io
import os
import random
import shutil
import signal
import stat
import threading
import time
from typing import TYPE_CHECKING

import pytest

from sandyard.errors import SnapshotPersistError
from sandyard.snapshot.disk import Disk
from sandyard.snapshot.place import Place
from sandyard.snapshot.store import SnapshotStore
from sandyard.workspace import WorkspaceRoot
from sandyard.workspace.extract import restore_members
from sandyard.workspace.extract_stage import clear_abandoned
from tests.snapshot.breaking import Breaking, Orderly, full, killed
from tests.snapshot.trees import archive_of, exported, facts_of, files_of
from tests.workspace.sample import looks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CHANCE = random.Random(1)  # noqa: S311  # the same each time, and no secret
BIG = CHANCE.randbytes(600_000)
FIRST = archive_of({"a": b"first", "big": BIG, "text": b"so it is\n" * 9_000})
SECOND = archive_of({"a": b"second", "big": BIG, "d/new": BIG[:400_000]})
OLD = archive_of({"old": BIG[::-1]})
WANT = {b"1": facts_of(FIRST), b"2": facts_of(SECOND)}


RESTORES = 3
"""Which of the programs that are killed restores."""


def save(store: SnapshotStore) -> None:
    store.take_tar("one", io.BytesIO(SECOND).read)


def prune(store: SnapshotStore) -> None:
    asyncio.run(store.prune(max_count=1, history="gone"))


def compact(store: SnapshotStore) -> None:
    asyncio.run(store.compact())


def base_of(tmp_path: Path) -> Path:
    """A store with one snapshot that must never be lost, and some that prune removes."""
    store = SnapshotStore(tmp_path / "base")
    store.take_tar("gone", io.BytesIO(OLD).read)
    store.take_tar("gone", io.BytesIO(FIRST).read)
    store.take_tar("one", io.BytesIO(FIRST).read)
    return tmp_path / "base"


def check(directory: Path, *, done: bool, others: bool = False) -> None:
    """What was acknowledged is there and whole; and the store goes on.

    Args:
        directory: the store's.
        done: whether the second save of the history was acknowledged.
        others: whether other histories were written to.
    """
    store = SnapshotStore(directory)

    async def look() -> None:
        health = await store.verify()
        assert health.ok, health.damage
        saved = await store.list("one")
        contents = [WANT[b"1"], WANT[b"2"]][: len(saved)]
        assert saved
        assert len(saved) == 2 or not done
        for snapshot, want in zip(saved, contents, strict=True):
            back = facts_of(await exported(store, snapshot.id))
            names = {name.rstrip(b"/") for name in want}
            assert {name.rstrip(b"/") for name in back} >= names
            for name, each in want.items():
                assert back[name] == each

    asyncio.run(look())
    save(store)
    assert asyncio.run(store.verify()).ok
    if others:
        asyncio.run(store.prune())  # a save removes what a killed one left of its own history
    assert not [path for path in files_of(store) if "/tmp-" in path]


def run_killed(directory: Path, act: Callable[[SnapshotStore], None], change: int) -> bool:
    """Do something in a process that ends before its n-th change; tell whether it came to that."""
    pid = os.fork()
    if pid == 0:
        try:
            act(SnapshotStore(directory, disk=Breaking(change, killed)))
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.waitstatus_to_exitcode(status) == 0
    return False


@pytest.mark.parametrize("act", [save, compact, pytest.param(prune, marks=pytest.mark.soak)])
def test_killed_at_each_change(tmp_path: Path, act: Callable[[SnapshotStore], None]) -> None:
    base, changes = base_of(tmp_path), 0
    while True:
        copy = tmp_path / f"copy{changes}"
        shutil.copytree(base, copy)
        died = run_killed(copy, act, changes)
        check(copy, done=not died and act is save)
        shutil.rmtree(copy)
        if not died:
            break
        changes += 1
    assert changes >= 5


@pytest.mark.parametrize("act", [save, pytest.param(compact, marks=pytest.mark.soak)])
def test_disk_full_at_each(tmp_path: Path, act: Callable[[SnapshotStore], None]) -> None:
    base, changes = base_of(tmp_path), 0
    while True:
        copy = tmp_path / f"copy{changes}"
        shutil.copytree(base, copy)
        before = files_of(SnapshotStore(copy))
        disk = Breaking(changes, full, removes=False)
        try:
            act(SnapshotStore(copy, disk=disk))
        except SnapshotPersistError:
            after = files_of(SnapshotStore(copy))
            assert all(after[path] == raw for path, raw in before.items() if path in after)
        check(copy, done=not disk.reached and act is save)
        shutil.rmtree(copy)
        if not disk.reached:
            break
        changes += 1
    assert changes >= 5


def test_first_save_killed(tmp_path: Path) -> None:
    """Before anything was acknowledged there is nothing, or all of it."""
    changes = 0
    while run_killed(tmp_path / f"s{changes}", save, changes):
        store = SnapshotStore(tmp_path / f"s{changes}")
        assert asyncio.run(store.verify()).ok
        save(store)
        assert asyncio.run(store.verify()).snapshots == 1
        changes += 1
    assert changes >= 8


def test_order_survives_power_loss(tmp_path: Path) -> None:
    """No name is given to bytes that are not on the disk yet, and names are before they are told."""
    disk = Orderly()
    store = SnapshotStore(tmp_path / "store", disk=disk)
    for archive in (FIRST, SECOND):
        store.take_tar("one", io.BytesIO(archive).read)
        assert not disk.unsafe
    compact(store)
    assert not disk.unsafe
    assert asyncio.run(store.verify()).snapshots == 2


class Failing(Orderly):
    """Fails once, when a directory is to survive for the n-th time.

    Args:
        time: which time, from 0.
    """

    def __init__(self, time: int) -> None:
        super().__init__()
        self._left = time

    def sync(self, descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            self._left -= 1
            if self._left == -1:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().sync(descriptor)


def test_names_of_others_survive(tmp_path: Path) -> None:
    """What a program has published that ended before it was safe is safe when the next one tells."""
    for time_ in range(3):
        base = tmp_path / f"s{time_}"
        SnapshotStore(base).take_tar("gone", io.BytesIO(OLD).read)
        disk = Failing(time_)
        store = SnapshotStore(base, disk=disk)
        with contextlib.suppress(SnapshotPersistError):
            save(store)
        save(store)
        assert not disk.unsafe


class Meanwhile(Disk):
    """Has another program save as soon as the first file is there under the name of a temporary one."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._waiting = True

    def write(self, file: int, data: bytes | bytearray | memoryview, at: int) -> None:
        super().write(file, data, at)
        if self._waiting:
            self._waiting = False
            save(SnapshotStore(self._directory))


def test_two_first_saves(tmp_path: Path) -> None:
    """Two programs that make a store at once don't take each other's files for litter."""
    store = SnapshotStore(tmp_path / "store", disk=Meanwhile(tmp_path / "store"))
    store.take_tar("two", io.BytesIO(FIRST).read)
    assert asyncio.run(store.verify()).snapshots == 2


def test_forked_worker_holds_nothing(tmp_path: Path) -> None:
    """A worker that was forked while somebody saved does not keep the store locked."""
    store = SnapshotStore(base_of(tmp_path))
    ending, end = os.pipe()
    with store.saving("one"):
        pid = os.fork()
        if pid == 0:
            os.close(end)
            os.read(ending, 1)
            os._exit(0)
    try:
        with Place(store.directory).alone(0):
            pass
    finally:
        os.close(end)
        os.close(ending)
        os.waitpid(pid, 0)


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(500))  # four kills each
def test_killed_at_any_moment(tmp_path: Path, seed: int) -> None:
    """Several programs save, reclaim and restore at once, and are killed when chance says so."""
    chance = random.Random(seed)  # noqa: S311  # likewise
    base = base_of(tmp_path)
    children = []
    for number in range(4):
        pid = os.fork()
        if pid == 0:
            work(base, number)
        children.append(pid)
    for pid in children:
        time.sleep(chance.random() * 0.2)  # the moment is what is tried, nothing waits for it
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    places = tmp_path / "restored", tmp_path / "whole"
    for place in places:  # what a killed one left is made whole, and nothing else is there
        restore(SnapshotStore(base), place)
    begun, fresh = (dict(looks(os.fsencode(place))) for place in places)
    assert begun == fresh
    check(base, done=False, others=True)


def restore(store: SnapshotStore, place: Path) -> None:
    """Restore as the start of a session does whose last one was killed."""
    place.mkdir(exist_ok=True)
    kept = store.last_of("one")
    assert kept is not None
    with WorkspaceRoot.open(place) as root, store.reading(kept.id) as reader:
        clear_abandoned(root.fd, None)
        restore_members(root, reader.members(kept.tree), threading.Event(), finish=True)


def work(directory: Path, number: int) -> None:
    """Save and reclaim without end, each time something else."""
    chance = random.Random(number)  # noqa: S311  # likewise
    store = SnapshotStore(directory)
    while True:
        if number == 0:
            compact(store)
            prune(store)
        elif number == RESTORES:
            place = directory.parent / "restored"
            restore(store, place)
            shutil.rmtree(place)
        else:
            archive = archive_of({"a": b"%d" % chance.getrandbits(64), "big": BIG})
            store.take_tar(f"work{number}", io.BytesIO(archive).read)
