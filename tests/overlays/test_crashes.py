"""A program that is killed while it applies leaves a directory that the next one puts right."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sandyard import WorkspaceArchiveWriteError
from sandyard.platform import state_directory
from sandyard.workspace import overlay_journal
from sandyard.workspace.sweep import sweep
from tests.house.sources import ROOT
from tests.overlays.conftest import Opened, contents

PROGRAM = """
import asyncio, os, signal, sys
from sandyard import Overlay, UnixLocalSandboxClient
from sandyard.workspace import overlay_apply, overlay_journal

base, where, left = sys.argv[1], sys.argv[2], int(sys.argv[3])


def dies(module, name):
    whole = getattr(module, name)

    def counted(*args, **kwargs):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return whole(*args, **kwargs)

    setattr(module, name, counted)


async def main():
    session = await UnixLocalSandboxClient().create(workspace=Overlay(base))
    await session.start()
    await session.rm("tool")
    await session.rm("src/deep", recursive=True)
    await session.write("notes", b"changed")
    await session.mkdir("new")
    await session.write("new/file", b"new")
    await session.chmod("src/main.py", 0o700)
    module = overlay_journal if hasattr(overlay_journal, where) else overlay_apply
    dies(module, where)
    await session.apply()
    print("applied", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


def run(base: Path, where: str, left: int) -> bool:
    """Apply in a program that is killed at a certain place; whether it came to the end before."""
    words = [sys.executable, "-c", PROGRAM, str(base), where, str(left)]
    done = subprocess.run(words, check=False, capture_output=True, cwd=ROOT)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    return b"applied" in done.stdout


@pytest.mark.parametrize(
    ("where", "places"),
    [("rename", range(5)), ("chmod_handle", range(1)), ("_write", range(4)), ("remove_tree", [0])],
)
def test_killed_apply_is_whole_or_undone(base: Path, where: str, places: list[int]) -> None:
    before = contents(base)
    for left in places:
        ended = run(base, where, left)
        sweep(state_directory(os.environ))
        now = contents(base)
        # When all was moved and noted, it is done, though the program did not live to tell.
        if now != before:
            assert ended or where in {"remove_tree", "_write"}
            assert now["notes"].endswith("changed")
            assert {"new/file", "tool"} & now.keys() == {"new/file"}
            return
        assert not ended
        assert os.listdir(Path(os.environ["XDG_STATE_HOME"], "sandyard/sessions")) == []


async def test_step_that_fails_is_undone(
    base: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also within one program: then the same changes can be applied again."""
    before = contents(base)
    async with opened() as session:
        for name in ("a", "b", "c"):
            await session.write(name, b"new")
        await session.write("notes", b"changed")
        whole, calls = overlay_journal.rename, 0

        def fails(*args: object) -> None:
            nonlocal calls
            calls += 1
            if calls == 3:
                raise OSError(28, "No space left on device")
            whole(*args)  # type: ignore[arg-type]

        monkeypatch.setattr(overlay_journal, "rename", fails)
        with pytest.raises(WorkspaceArchiveWriteError):
            await session.apply()
        assert contents(base) == before
        monkeypatch.setattr(overlay_journal, "rename", whole)
        assert (await session.apply()).applied == ("a", "b", "c", "notes")
    assert (base / "notes").read_text() == "changed"
