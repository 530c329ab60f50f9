"""A program that is killed while it applies leaves a directory that the next one puts right."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from sandyard import WorkspaceArchiveWriteError, WorkspaceStartError, WorkspaceStopError
from sandyard.platform import state_directory
from sandyard.workspace import overlay_apply, overlay_journal
from sandyard.workspace.deletion import delete_leased
from sandyard.workspace.extract_tree import rename
from sandyard.workspace.lease import Lease
from sandyard.workspace.overlay_place import OverlayPlace
from sandyard.workspace.overlay_tree import PlainTree
from sandyard.workspace.sweep import sweep
from tests.house.sources import ROOT
from tests.overlays.conftest import Opened, contents

PROGRAM = """
import json, os, signal, stat, sys, threading
from pathlib import Path
from uuid import uuid4
from sandyard.workspace import overlay_apply, overlay_journal
from sandyard.workspace.lease import Lease
from sandyard.workspace.overlay_place import OverlayPlace


def dies(name, left):
    modules = [each for each in (overlay_apply, overlay_journal) if hasattr(each, name)]
    whole = getattr(modules[0], name)

    def counted(*args, **kwargs):
        nonlocal left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return whole(*args, **kwargs)

    for module in modules:
        setattr(module, name, counted)


def run(state, base, where, left):
    lease = Lease.take(state, str(uuid4()), root=base, owned=False)
    place = OverlayPlace(lease, base)
    lease.note(place.prepare().inode)
    upper = Path(place.upper)
    (upper / "src").mkdir()
    (upper / "new").mkdir()
    for gone in ("tool", "src/deep"):  # as overlayfs keeps what was deleted
        os.mknod(upper / gone, stat.S_IFCHR)
    (upper / "notes").write_text("changed")
    (upper / "new/file").write_text("new")
    (upper / "src/main.py").write_bytes(Path(base, "src/main.py").read_bytes())
    (upper / "src/main.py").chmod(0o700)
    dies(where, left)
    overlay_apply.apply_changes(place, None, threading.Event(), overwrite=False)
    os._exit(0)


for case in json.loads(sys.argv[1]):
    pid = os.fork()
    if pid == 0:
        run(*case)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""

PLACES = [
    *(("rename", left) for left in range(5)),
    ("chmod_handle", 0),
    *(("fill_file", left) for left in range(3)),
    *(("_write", left) for left in range(5)),
    ("remove_tree", 0),
    ("write_known", 0),
]
"""Calls on the way of an apply in which it is killed, and how many of them come before."""

DONE = {("rename", 4), ("_write", 4), ("remove_tree", 0), ("fill_file", 2)}
"""Where that is after all was moved and noted, or no such call comes any more."""


@pytest.fixture
def state_home() -> str:
    """The user's state directory."""
    return state_directory(os.environ)


def test_killed_apply_is_whole_or_undone(base: Path) -> None:
    before, state = contents(base), state_directory(os.environ)
    cases = []
    for number, place in enumerate(PLACES):
        copy = base.parent / f"{number}"
        shutil.copytree(base, copy, symlinks=True)
        cases.append((state, str(copy), *place))
    told = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(cases)],
        check=True,
        capture_output=True,
        cwd=ROOT,
    )
    codes = told.stdout.decode().split()
    assert str(-signal.SIGKILL) in codes
    assert {*codes} <= {str(-signal.SIGKILL), "0"}, told.stderr
    sweep(state)
    done = set()
    for number, place in enumerate(PLACES):
        now = contents(base.parent / f"{number}")
        if now != before:
            assert now["notes"].endswith("changed"), place
            assert {"new/file", "tool"} & now.keys() == {"new/file"}, place
            assert not any(name.startswith(".sandyard") for name in now), place
            done.add(place)
        else:
            assert codes[number] == str(-signal.SIGKILL), place
    assert done == DONE
    assert os.listdir(Path(state, "sessions")) == []


def cut_short(
    base: Path, state: str, monkeypatch: pytest.MonkeyPatch
) -> tuple[Lease, OverlayPlace]:
    """An apply that ended between two steps, as if its program was killed."""
    lease = Lease.take(state, str(uuid4()), root=str(base), owned=False)
    place = OverlayPlace(lease, str(base))
    lease.note(place.prepare().inode)
    for name in ("notes", "tool", "src/main.py"):
        changed = Path(place.upper, name)
        changed.parent.mkdir(exist_ok=True)
        changed.write_text("changed")

    def ends(journal: overlay_journal.Journal, top: PlainTree, stage: int) -> None:
        overlay_journal.carry_out(replace(journal, steps=journal.steps[:2]), top, stage)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(overlay_apply, "carry_out", ends)
        patched.setattr(overlay_apply, "undo", lambda *_: [])
        patched.setattr(overlay_apply, "settle_journal", lambda _: None)
        with pytest.raises(KeyboardInterrupt):
            overlay_apply.apply_changes(place, None, threading.Event(), overwrite=False)
    return lease, place


def test_absent_directory_is_put_right_later(
    base: Path, state_home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file system may be unmounted, or something stand over it, when somebody looks."""
    before, away = contents(base), base.with_name("away")
    lease, place = cut_short(base, state_home, monkeypatch)
    assert contents(base) != before
    base.rename(away)
    base.mkdir()
    with lease:
        with pytest.raises(WorkspaceStartError) as refused:
            place.prepare()
        assert refused.value.context["reason"] == "not_its_own"
        with pytest.raises(WorkspaceStopError, match="put the directory back"):
            place.remove()
    sweep(state_home)
    base.rmdir()
    away.rename(base)
    assert contents(base) != before
    sweep(state_home)
    assert contents(base) == before
    assert os.listdir(Path(state_home, "sessions")) == []


def test_deleted_session_leaves_nothing_half(
    base: Path, state_home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(base)
    lease, place = cut_short(base, state_home, monkeypatch)
    delete_leased(lease, str(base), None, place)
    assert contents(base) == before
    assert os.listdir(Path(state_home, "sessions")) == []


def test_lost_places_keep_nothing_from_being_undone(
    base: Path, state_home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What somebody removed with all in it has no place to go back to; all else has."""
    lease, place = cut_short(base, state_home, monkeypatch)
    shutil.rmtree(base / "src")
    delete_leased(lease, str(base), None, place)
    assert (base / "notes").read_text() == "one\ntwo\nthree\n"
    assert (base / "tool").read_text() == "#!/bin/sh\n"


def test_journal_that_nobody_could_read_is_refused(
    base: Path, state_home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(base)
    lease = Lease.take(state_home, str(uuid4()), root=str(base), owned=False)
    place = OverlayPlace(lease, str(base))
    place.prepare()
    Path(place.upper, "n" * 200).write_text("new")
    with monkeypatch.context() as patched:
        patched.setattr(overlay_journal, "APPLY_JOURNAL_BYTES", 400)
        with pytest.raises(OSError, match="too large"):
            overlay_apply.apply_changes(place, None, threading.Event(), overwrite=False)
    assert contents(base) == before
    delete_leased(lease, str(base), None, place)


async def test_step_that_fails_is_undone(
    base: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also within one program: then the same changes can be applied again."""
    before = contents(base)
    async with opened() as session:
        for name in ("a", "b", "c"):
            await session.write(name, b"new")
        await session.write("notes", b"changed")
        calls = 0

        def fails(*args: object) -> None:
            nonlocal calls
            calls += 1
            if calls == 3:
                raise OSError(28, "No space left on device")
            rename(*args)  # type: ignore[arg-type]

        monkeypatch.setattr(overlay_journal, "rename", fails)
        with pytest.raises(WorkspaceArchiveWriteError):
            await session.apply()
        assert contents(base) == before
        monkeypatch.setattr(overlay_journal, "rename", rename)
        assert (await session.apply()).applied == ("a", "b", "c", "notes")
    assert (base / "notes").read_text() == "changed"


async def test_next_start_undoes(
    base: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What could not be undone at once is when the same session starts anew."""
    before, left = contents(base), 2

    def fails(*args: object) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(5, "Input/output error")
        rename(*args)  # type: ignore[arg-type]

    async with opened() as session:
        for name in ("a", "b", "c"):
            await session.write(name, b"new")
        with monkeypatch.context() as patched:
            patched.setattr(overlay_journal, "rename", fails)
            with pytest.raises(WorkspaceArchiveWriteError):
                await session.apply()
            assert contents(base) != before
            await session.shutdown()
            with pytest.raises(WorkspaceStartError) as refused:
                await session.start()
            assert refused.value.context["reason"] == "apply_cut_short"
        await session.start()
        assert contents(base) == before
        assert (await session.apply()).applied == ("a", "b", "c")
