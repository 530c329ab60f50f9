"""Races for what the policy closes: links and directories are swapped while each verb works."""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from sandyard.errors import SandboxError
from sandyard.patching import Operation, apply_diff
from sandyard.planted import ProtectedPart
from sandyard.workspace import WorkspaceRoot
from sandyard.workspace.changing import change_mode, copy, move
from sandyard.workspace.descent import refuse_rules
from sandyard.workspace.files import append, make_directory, read_range, remove, write
from sandyard.workspace.kernel import Kernel
from sandyard.workspace.patches import carry_out
from sandyard.workspace.reach import govern
from tests.workspace.race.arena import CONTROL_S, ONLY_OUTSIDE, SECRET, Arena, fill_outside, running
from tests.workspace.race.watch import describe_tree

ROUNDS = 300
ATTACKS = ("links", "dots")


def move_in(root: WorkspaceRoot) -> None:
    write(root, "mine", b"evil")
    move(root, "mine", "d/new")


def patch(root: WorkspaceRoot) -> None:
    carry_out(root, [Operation("create_file", "d/p/new", "+evil")], apply_diff)


WRITES: dict[str, Callable[[WorkspaceRoot], object]] = {
    "write": lambda root: write(root, "d/secret", b"evil"),
    "write new": lambda root: write(root, f"d/{secrets.token_hex(4)}", b"evil"),
    "append": lambda root: append(root, "d/secret", b"evil"),
    "chmod": lambda root: change_mode(root, "d/secret", 0o600),
    "mkdir": lambda root: make_directory(root, f"d/{secrets.token_hex(4)}"),
    "rm": lambda root: remove(root, "d/secret"),
    "rm -r": lambda root: remove(root, "d", recursive=True),
    "mv in": move_in,
    "mv out": lambda root: move(root, "d/secret", "taken"),
    "copy in": lambda root: copy(root, "mine", "d/new"),
    "patch": patch,
}


def closed_by(root: WorkspaceRoot, closed: Path, kind: str) -> None:
    """Let a rule close a directory of the workspace."""
    facts = closed.stat()
    inode = facts.st_dev, facts.st_ino
    if kind == "denied":
        govern(root, (), (str(closed),), ())
    else:
        govern(root, (), (), (ProtectedPart(str(closed), str(closed), inode, read_only=True),))


@contextmanager
def attacked(arena: Arena, attack: str, closed: Path) -> Iterator[None]:
    """Names lead into what is closed, and out of it, in the block."""
    with running([str(arena.attacker), attack, str(arena.base), str(closed)]):
        yield


@pytest.fixture(params=["kernel", "walk"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Kernel, "resolves", request.param == "kernel")


@pytest.mark.timeout(180)
@pytest.mark.parametrize("kind", ["denied", "protected"])
def test_nothing_closed_is_changed(raced: WorkspaceRoot, arena: Arena, kind: str) -> None:
    closed = fill_outside(arena.base, "closed")
    (arena.base / "mine").write_bytes(b"evil")
    closed_by(raced, closed, kind)
    before, done = describe_tree(closed), dict.fromkeys(WRITES, 0)
    for attack in ATTACKS:
        with attacked(arena, attack, closed):
            for _ in range(ROUNDS):
                for name, act in WRITES.items():
                    with suppress(SandboxError):
                        act(raced)
                        done[name] += 1
        assert describe_tree(closed) == before
    assert all(done.values()), done


@pytest.mark.timeout(180)
def test_nothing_denied_is_read(raced: WorkspaceRoot, arena: Arena) -> None:
    closed = fill_outside(arena.base, "closed")
    closed_by(raced, closed, "denied")
    done = 0
    for attack in ATTACKS:
        with attacked(arena, attack, closed):
            for _ in range(3 * ROUNDS):
                with suppress(SandboxError):
                    assert SECRET not in read_range(raced, "d/secret", 0, 100)
                    done += 1
                taken = f"taken-{secrets.token_hex(4)}"
                with suppress(SandboxError):
                    copy(raced, "d", taken, recursive=True)
                    full = arena.base / taken
                    assert not full.is_dir() or ONLY_OUTSIDE not in os.listdir(full)
    assert done


@pytest.mark.timeout(120)
def test_a_naive_way_is_led_there(arena: Arena) -> None:
    closed = fill_outside(arena.base, "closed")
    before, end = describe_tree(closed), time.monotonic() + CONTROL_S
    with attacked(arena, "links", closed):
        while describe_tree(closed) == before:
            assert time.monotonic() < end, "the naive way did not leak, so nothing was shown"
            for _ in range(16):
                with suppress(OSError):
                    path = arena.base / "d/secret"
                    if not os.path.realpath(path).startswith(f"{closed}/"):
                        path.write_bytes(b"evil")


def test_what_is_moved_in_meanwhile_stays(
    raced: WorkspaceRoot, arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Something with a rule comes into a tree after it was looked through, before it is removed."""
    kept = arena.base / "project/.git"
    kept.mkdir(parents=True)
    (kept / "config").write_bytes(b"kept")
    facts = kept.stat()
    part = ProtectedPart(str(kept), str(kept), (facts.st_dev, facts.st_ino), read_only=False)
    govern(raced, (), (), (part,))
    (arena.base / "tree/deep").mkdir(parents=True)

    def late(*given: object) -> None:
        refuse_rules(*given)  # type: ignore[arg-type]
        (arena.base / "project").rename(arena.base / "tree/deep/project")

    monkeypatch.setattr("sandyard.workspace.files.refuse_rules", late)
    with pytest.raises(SandboxError, match="holds"):
        remove(raced, "tree", recursive=True)
    assert (arena.base / "tree/deep/project/.git/config").read_bytes() == b"kept"


def test_towers_end(raced: WorkspaceRoot, arena: Arena) -> None:
    """Somebody carries the directory that is written in from place to place all the time."""
    closed = fill_outside(arena.base, "closed")
    closed_by(raced, closed, "protected")
    for name in ("x", "y", "x/d"):
        (arena.base / name).mkdir()
    stop = threading.Event()

    def carry() -> None:
        while not stop.is_set():
            with suppress(OSError):  # a write makes what is missing on its way
                (arena.base / "x/d").rename(arena.base / "y/d")
                (arena.base / "y/d").rename(arena.base / "x/d")

    thread = threading.Thread(target=carry)
    thread.start()
    try:
        done = 0
        for number in range(ROUNDS):
            with suppress(SandboxError):
                write(raced, "x/d/file", b"%d" % number)
                done += 1
    finally:
        stop.set()
        thread.join()
    assert done
