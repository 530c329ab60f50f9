"""A program that saves and restores a million files, and tells what memory that took.

Its argument is a directory. It prints the growth of its peak in KiB: by the save, by a second save of
the same, by verifying, and by the restore.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
import threading
from pathlib import Path

from sandyard.snapshot.store import SnapshotStore
from sandyard.workspace import WorkspaceRoot
from sandyard.workspace.extract import restore_members
from tests.snapshot.test_live_trees import save

DIRECTORIES = 1_000
FILES = 1_000
"""In each of them; every other one is empty, and no two of the others are alike."""


def fill(base: Path, directories: int, files: int) -> None:
    """Make so many directories with so many files each."""
    base.mkdir()
    for directory in range(directories):
        place = base / f"d{directory}"
        place.mkdir()
        here = os.open(place, os.O_RDONLY)
        for number in range(files):
            file = os.open(f"f{number}", os.O_WRONLY | os.O_CREAT, 0o640, dir_fd=here)
            if number % 2:
                os.write(file, b"%d %d" % (directory, number))
            os.close(file)
        os.close(here)


def restore(store: SnapshotStore, snapshot: str, place: Path) -> None:
    """Restore it into a new directory."""
    place.mkdir()
    kept = asyncio.run(store.get(snapshot))
    with WorkspaceRoot.open(place) as root, store.reading(snapshot) as reader:
        restore_members(root, reader.members(kept.tree), threading.Event())


def compare(one: Path, other: Path) -> int:
    """Compare two trees, one directory after the other; return how many files they have."""
    count = 0
    assert sorted(os.listdir(one)) == sorted(os.listdir(other))
    for directory in os.listdir(one):
        here, there = one / directory, other / directory
        names = os.listdir(here)
        assert sorted(names) == sorted(os.listdir(there))
        for name in names:
            first, second = (here / name).stat(), (there / name).stat()
            assert (first.st_mode, first.st_size, first.st_mtime_ns) == (
                (second.st_mode, second.st_size, second.st_mtime_ns)
            ), name
            if first.st_size:
                assert (here / name).read_bytes() == (there / name).read_bytes(), name
        count += len(names)
    return count


def peak() -> int:
    """The most memory that this program has held so far, in KiB."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    raise AssertionError("/proc/self/status has no VmHWM")


def main(top: Path) -> None:
    """Do it, with few files first: what is loaded and kept for any save is not counted."""
    store = SnapshotStore(top / "warm")
    fill(top / "few", 2, 2)
    restore(store, save(store, top / "few").id, top / "fewback")
    assert asyncio.run(store.verify()).ok
    store = SnapshotStore(top / "store")
    fill(top / "base", DIRECTORIES, FILES)
    peaks = [peak()]
    made = save(store, top / "base")
    assert made.files == DIRECTORIES * FILES
    peaks.append(peak())
    assert save(store, top / "base").id == made.id
    peaks.append(peak())
    assert asyncio.run(store.verify()).ok
    peaks.append(peak())
    restore(store, made.id, top / "back")
    peaks.append(peak())
    assert compare(top / "base", top / "back") == DIRECTORIES * FILES
    sys.stdout.write(json.dumps([after - before for before, after in itertools.pairwise(peaks)]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
