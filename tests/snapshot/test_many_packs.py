"""A store with many packs: a summary tells which of them to ask, and nothing is lost by what it says."""

from __future__ import annotations

import asyncio
import io
import os
import shutil
from typing import TYPE_CHECKING

import pytest

from sandyard.snapshot import objects
from sandyard.snapshot.packs import read_list
from sandyard.snapshot.sizes import UNTOLD_PACKS
from sandyard.snapshot.store import SnapshotStore
from sandyard.snapshot.summary import Summary
from tests.snapshot.breaking import Breaking, full
from tests.snapshot.test_crashes import run_killed
from tests.snapshot.trees import archive_of, exported, facts_of, files_of, rewrite

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sandyard.snapshot.packs import SortedList
    from sandyard.snapshot.records import Snapshot

MANY = 2 * UNTOLD_PACKS + 4
BIG = os.urandom(30_000)


def tree_of(number: int) -> bytes:
    """Something of which a part is new each time."""
    return archive_of({"same": BIG, "new": b"%d" % number, "other": BIG[number:]})


def save(store: SnapshotStore, number: int = MANY) -> Snapshot:
    return store.take_tar("one", io.BytesIO(tree_of(number)).read)


def summary_of(store: SnapshotStore) -> str:
    return f"{store.directory}/index/.packs.index"


def count_of(store: SnapshotStore) -> int:
    return len(os.listdir(f"{store.directory}/packs"))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of many packs, each saved by somebody who opened it anew."""
    directory = tmp_path_factory.mktemp("many") / "store"
    for number in range(MANY):
        save(SnapshotStore(directory), number)
    return directory


@pytest.fixture
def store(base: Path, tmp_path: Path) -> SnapshotStore:
    return SnapshotStore(shutil.copytree(base, tmp_path / "store"))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Notes each list of a pack that is read."""
    noted: list[int] = []

    def reading(file: int) -> SortedList:
        noted.append(file)
        return read_list(file)

    monkeypatch.setattr(objects, "read_list", reading)
    return noted


def check(store: SnapshotStore, count: int = MANY) -> None:
    """All that was saved is whole, by whichever way it is read."""

    async def look() -> None:
        saved = await store.list("one")
        assert [each.number for each in saved] == [*range(1, count + 1)]
        for number, snapshot in enumerate(saved):
            assert facts_of(await exported(store, snapshot.id)) == facts_of(tree_of(number))
        assert (await store.verify()).ok

    asyncio.run(look())


def test_few_lists_are_read(store: SnapshotStore, reads: list[int]) -> None:
    """Who opens the store reads the lists of packs that are needed, and nothing is kept twice."""
    assert os.path.exists(summary_of(store))
    count, size = count_of(store), sum(map(len, files_of(store).values()))
    save(store)
    assert len(reads) <= UNTOLD_PACKS + 4
    assert count_of(store) == count + 1
    assert sum(map(len, files_of(store).values())) < size + len(BIG) + 3_000
    reads.clear()
    save(store, MANY + 1)
    assert len(reads) <= 4
    check(SnapshotStore(store.directory), MANY + 2)


def test_summary_may_be_lost(store: SnapshotStore) -> None:
    os.unlink(summary_of(store))
    save(store)
    assert os.path.exists(summary_of(store))
    check(SnapshotStore(store.directory), MANY + 1)


def flip(raw: bytes, at: int) -> bytes:
    return raw[:at] + bytes([raw[at] ^ 255]) + raw[at + 1 :]


TORN: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "cut": lambda raw: raw[:-100],
    "zeros": lambda raw: bytes(len(raw)),
    "mark": lambda raw: flip(raw, len(raw) - 1),
    "packs": lambda raw: flip(raw, len(raw) - 40_000),
    "entries": lambda raw: bytes(2_000) + raw[2_000:],
    "longer": lambda raw: raw + b"more",
}


@pytest.mark.parametrize("torn", TORN)
def test_torn_summary_does_no_harm(store: SnapshotStore, torn: str) -> None:
    """As a loss of power may leave it: all is found, and who saves writes it anew."""
    with open(summary_of(store), "rb") as file:
        good = file.read()
    rewrite(summary_of(store), TORN[torn](good))
    check(SnapshotStore(store.directory))
    save(SnapshotStore(store.directory))
    with open(summary_of(store), "rb") as file:
        assert len(file.read()) >= len(good)
    check(SnapshotStore(store.directory), MANY + 1)


def test_summary_of_another_store(store: SnapshotStore, tmp_path: Path) -> None:
    """One that knows of nothing that is here makes nothing missing."""
    other = SnapshotStore(tmp_path / "other")
    for number in range(UNTOLD_PACKS + 3):
        other.take_tar("two", io.BytesIO(archive_of({"a": b"%d" % number})).read)
    shutil.copy(summary_of(other), summary_of(store))
    check(SnapshotStore(store.directory))


def test_what_it_lacks_is_found(store: SnapshotStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """An object that a summary denies, though it speaks of its pack, is found in the pack."""
    monkeypatch.setattr(Summary, "packs_with", lambda *_: iter(()))
    check(SnapshotStore(store.directory))


def test_cut_pack_is_noticed(store: SnapshotStore) -> None:
    """What a pack has lost that the summary speaks of is kept once more."""
    path, raw = next(iter(pair for pair in files_of(store).items() if BIG in pair[1]))
    rewrite(path, raw.replace(BIG, BIG[::-1])[:-10])
    save(SnapshotStore(store.directory), MANY - 1)
    assert sum(BIG in each for each in files_of(store).values()) == 1


@pytest.mark.parametrize("most", [1, MANY // 4, MANY - 3])
def test_packs_go(store: SnapshotStore, most: int) -> None:
    """A summary that speaks of packs that were removed is of use for the others."""
    asyncio.run(store.prune(max_count=most))
    fresh = SnapshotStore(store.directory)
    assert len(asyncio.run(fresh.list())) == most
    assert asyncio.run(fresh.verify()).ok
    for number in range(MANY, 2 * MANY):
        save(fresh if number % 2 else store, number)
    assert asyncio.run(fresh.verify()).snapshots == most + MANY
    asyncio.run(store.compact())
    assert asyncio.run(store.verify()).snapshots == most + MANY
    assert count_of(store) == 1
    save(store, 3 * MANY)
    assert asyncio.run(SnapshotStore(store.directory).verify()).snapshots == most + MANY + 1


def test_two_programs_tell(store: SnapshotStore) -> None:
    """Each writes the summary while the other has an older one."""
    another = SnapshotStore(store.directory)
    for number in range(MANY, 3 * MANY):
        save((store, another)[number // 7 % 2], number)
    check(SnapshotStore(store.directory), 3 * MANY)


def with_due(base: Path, directory: Path) -> None:
    """A store whose summary is due with the next save."""
    shutil.copytree(base, directory)
    with open(f"{directory}/index/.packs.index", "rb") as file:
        told = file.read()
    store, number = SnapshotStore(directory), MANY
    while True:
        save(store, number)
        number += 1
        with open(summary_of(store), "rb") as file:
            if file.read() != told:
                break
    os.unlink(summary_of(store))


def test_killed_while_it_is_told(base: Path, tmp_path: Path) -> None:
    """Whoever is killed at any change of a save that writes the summary loses nothing."""
    with_due(base, tmp_path / "due")
    changes = 0
    while True:
        copy = tmp_path / f"copy{changes}"
        shutil.copytree(tmp_path / "due", copy)
        died = run_killed(copy, lambda store: void(save(store, 1_000)), changes)
        store = SnapshotStore(copy)
        assert asyncio.run(store.verify()).ok
        made = save(store, 1_000)
        assert facts_of(asyncio.run(exported(store, made.id))) == facts_of(tree_of(1_000))
        assert asyncio.run(store.verify()).ok
        assert not [path for path in files_of(store) if "/tmp-" in path]
        shutil.rmtree(copy)
        if not died:
            break
        changes += 1
    assert changes >= 8


def void(_: object) -> None:
    """Give nothing back."""


def test_no_room_for_it(base: Path, tmp_path: Path) -> None:
    """A save goes on where there is no room for the summary, and only there."""
    with_due(base, tmp_path / "due")
    copy = tmp_path / "copy"
    for change in range(3):  # makes it, writes it, gives it its name
        shutil.copytree(tmp_path / "due", copy)
        disk = Breaking(change, full, removes=False)
        save(SnapshotStore(copy, disk=disk), 1_000)
        assert disk.reached
        assert asyncio.run(SnapshotStore(copy).verify()).ok
        shutil.rmtree(copy)
