"""A program that is killed while it applies leaves a directory that the next one puts right."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sandyard import WorkspaceArchiveWriteError
from sandyard.platform import state_directory
from sandyard.workspace import overlay_journal
from sandyard.workspace.extract_tree import rename
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
