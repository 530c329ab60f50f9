"""A program that kills applies of changes that a seed chose before their system calls, and tells what became.

Its argument is an ``Order`` as JSON, its answer a ``Found``; null where nothing can be traced.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import stat
import sys
import threading
from pathlib import Path
from typing import TypedDict
from uuid import uuid4

from sandyard.platform import state_directory
from sandyard.workspace.lease import Lease
from sandyard.workspace.overlay_apply import apply_changes
from sandyard.workspace.overlay_place import OverlayPlace
from sandyard.workspace.sweep import sweep
from tests.faults.tracing import Fault, Traced, Window, can_trace, trace
from tests.overlays.conftest import contents

FILES = 8
CHANGES = 8


class Order(TypedDict):
    """What is to be tried.

    Attributes:
        directory: where the trees are made.
        seeds: of each, one set of changes is made.
        points: how many moments of each apply; 0 is before every call.
    """

    directory: str
    seeds: list[int]
    points: int


class Found(TypedDict):
    """What came of it.

    Attributes:
        wrong: by seed and moment, what is neither all of it nor nothing.
        killed: how many were killed.
        done: how many of these had done all of it.
    """

    wrong: dict[str, list[str]]
    killed: int
    done: int


def plant(base: Path, dice: random.Random) -> None:
    """Make a directory with some of everything that may be changed."""
    places = [base, base / "d", base / "d/inner", base / "other"]
    for place in places:
        place.mkdir()
        place.chmod(0o755)
    for number in range(FILES):
        file = dice.choice(places) / f"f{number}"
        file.write_text(f"{number}\n" * dice.randrange(3))
    (base / "link").symlink_to("d")


def change(base: Path, upper: Path, dice: random.Random) -> None:
    """Change some of it, as overlayfs keeps that."""
    there = sorted(path for path in base.rglob("*"))
    for number, path in enumerate(dice.sample(there, CHANGES)):
        place = upper / path.relative_to(base)
        if not all(each.is_dir() for each in place.parents if each.is_relative_to(upper)):
            lead(upper, place)
        if not place.parent.is_dir() or os.path.lexists(place):
            continue  # what it lies in was deleted or changed
        act = dice.choice(("delete", "write", "directory", "link", "mode", "new"))
        if act == "delete":
            os.mknod(place, stat.S_IFCHR)
        elif act == "write":
            place.write_text(f"changed {number}\n")
        elif act == "link":
            place.symlink_to("elsewhere")
        elif act == "mode" and path.is_file() and not path.is_symlink():
            shutil.copyfile(path, place)
            place.chmod(0o700)
        elif act == "directory" and not path.is_dir():
            (place / "below").mkdir(parents=True)
            (place / "below/file").write_text("new")
        else:
            (place.parent / f"new{number}").write_text("new")


def lead(upper: Path, place: Path) -> None:
    """Make the directories that lead to something, unless one of them is something else by now."""
    for each in reversed(place.parents):
        if each != upper and each.is_relative_to(upper) and not os.path.lexists(each):
            if not each.parent.is_dir():
                return
            each.mkdir(0o755)


def apply_once(base: Path, seed: int, fault: Fault) -> Traced:
    """Apply what a seed changes in a program that may be killed amid it."""

    def run(window: Window) -> None:
        lease = Lease.take(state_directory(os.environ), str(uuid4()), root=str(base), owned=False)
        place = OverlayPlace(lease, str(base))
        lease.note(place.prepare().inode)
        change(base, Path(place.upper), random.Random(seed))  # noqa: S311  # no secret
        window.watched = True
        apply_changes(place, None, threading.Event(), overwrite=False)
        window.watched = False

    return trace(run, fault)


def look_again(base: Path) -> dict[str, str]:
    """What the directory holds once the next program has swept."""
    sweep(state_directory(os.environ))
    return contents(base)


def try_seed(order: Order, seed: int, found: Found) -> None:
    """Kill the apply of one set of changes at its moments."""
    dice, top = random.Random(seed), Path(order["directory"], str(seed))  # noqa: S311  # likewise
    top.mkdir()
    base, whole = top / "base", top / "whole"
    plant(base, dice)
    shutil.copytree(base, whole, symlinks=True)
    seen = apply_once(whole, seed, Fault())
    if seen.status:
        found["wrong"][f"{seed}"] = [f"it ended with {seen.status}"]
    before, after = contents(base), look_again(whole)
    moments = range(1, seen.entered + 1)
    chosen = dice.sample(moments, order["points"]) if order["points"] else moments
    for moment in chosen:
        copy = top / f"{moment}"
        shutil.copytree(base, copy, symlinks=True)
        killed = apply_once(copy, seed, Fault(kill_at=moment)).happened
        now = look_again(copy)
        found["killed"] += killed
        found["done"] += killed and now == after
        if now not in ((before, after) if killed else (after,)):
            strange = now.items() ^ before.items()
            found["wrong"][f"{seed} before call {moment}"] = sorted(name for name, _ in strange)
        shutil.rmtree(copy)


def main() -> None:
    """Carry out the order."""
    order: Order = json.loads(sys.argv[1])
    if not can_trace():
        sys.stdout.write("null")
        return
    found: Found = {"wrong": {}, "killed": 0, "done": 0}
    for seed in order["seeds"]:
        try_seed(order, seed, found)
    left = os.listdir(Path(state_directory(os.environ), "sessions"))
    if left:
        found["wrong"]["sessions"] = left
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
