"""Every kind of session of ours shows the behaviours that any session must."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandyard import ExecResult, UnixLocalSandboxSession, presets
from sandyard.testing import BEHAVIOURS, Promise, run_conformance
from tests.conformance.held_session import held_sessions
from tests.conformance.local_session import OPENED, local_sessions, read_back
from tests.house.sources import ROOT
from tests.ladder.hosts import ask
from tests.supervisor.living import end_supervisor, remote

AIM = 150

LOWER = {
    "nested,covered_proc": set[str](),
    "nested,no_user": {
        "handles.pty_takes_typing",
        "handles.terminal_close_ends_tree",
        "handles.terminal_has_window",
        "handles.terminal_is_one",
        "handles.terminal_takes_typing",
        "links.tells_owner_names",
        "wall.loopback_works",
    },
}
"""What lower rungs can't do. The lowest has no terminals and no loopback of its own, and its ``/etc`` is
the host's, which has no name for the user inside."""

OPEN = {"wall.has_own_home", "wall.reaches_no_host_port"}
"""What a policy opens."""

OF_WALL = {
    "links.tells_owner_names",
    *(one.name for one in BEHAVIOURS if one.name.startswith("wall.")),
}
"""What may go with the wall; as root the system itself keeps a part of it, since commands are another user."""

GONE = {"wall.reaches_no_host_port", "wall.reaches_no_abstract_socket"} | (
    {"wall.hides_host_files", "wall.signals_no_host_process", "wall.traces_nothing_outside"}
    if os.geteuid() != 0
    else set()
)
"""What goes with it on every machine."""

UNWATCHED = {"searching.watches_changes"}
"""What the supervisor's sessions do not offer."""


def test_behaviours_are_told() -> None:
    names = [one.name for one in BEHAVIOURS]
    assert len(set(names)) == len(names) >= AIM
    assert all(one.says.endswith(".") for one in BEHAVIOURS)
    assert {one.promise for one in BEHAVIOURS} == set(Promise)


async def test_sessions_here_show_all() -> None:
    result = await run_conformance(local_sessions())
    assert len(result.passed) == len(BEHAVIOURS), str(result)


@pytest.mark.once
async def test_policy_changes_what_it_says() -> None:
    result = await run_conformance(local_sessions(OPENED), only=["wall"])
    unlike = {one.behaviour.name for one in result if one.verdict != "passed"}
    assert unlike == OPEN, str(result)


@pytest.mark.soak
@pytest.mark.once
@pytest.mark.parametrize("how", LOWER)
def test_lower_rung_shows_the_rest(how: str) -> None:
    result = read_back(ask(how, "tests.conformance.local_session"))
    assert {one.behaviour.name for one in result if one.verdict != "passed"} == LOWER[how], str(
        result
    )


@pytest.mark.soak
async def test_no_wall_shows_the_rest() -> None:
    result = await run_conformance(local_sessions(presets.UNCONFINED))
    unlike = {one.behaviour.name for one in result if one.verdict != "passed"}
    assert GONE <= unlike <= OF_WALL, str(result)


@pytest.fixture
def supervised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for variable, name in (("XDG_RUNTIME_DIR", "run"), ("XDG_STATE_HOME", "state")):
        (tmp_path / name).mkdir(mode=0o700)
        monkeypatch.setenv(variable, str(tmp_path / name))
    yield
    end_supervisor()


@pytest.mark.soak
@pytest.mark.once
@pytest.mark.usefixtures("supervised")
async def test_held_sessions_show_all() -> None:
    result = await run_conformance(held_sessions(remote()))
    assert not result.failed, str(result)
    assert {one.behaviour.name for one in result.not_offered} == UNWATCHED, str(result)


async def test_wrong_sessions_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = UnixLocalSandboxSession.exec

    async def wrong(self: UnixLocalSandboxSession, *words: str, **options: object) -> ExecResult:
        result = await right(self, *words, **options)  # type: ignore[arg-type]  # passed on
        result.exit_code = 0
        return result

    monkeypatch.setattr(UnixLocalSandboxSession, "exec", wrong)
    result = await run_conformance(local_sessions(), only=["commands.tells_exit_code", "reading"])
    assert [str(one) for one in result.failed] == [
        "commands.tells_exit_code: failed: it gives (0, True), not (37, False)"
    ]
    assert "1 failed, 0 not offered" in str(result)


async def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="raeding"):
        await run_conformance(local_sessions(), only=["raeding"])


@pytest.mark.once
def test_page_names_behaviours() -> None:
    page = (ROOT / "docs" / "conformance.md").read_text(encoding="utf-8")
    told = dict(re.findall(r"^- `(\w+\.\w+)`: (.*)$", page, re.MULTILINE))
    known = {one.name: one.says.replace("``", "`") for one in BEHAVIOURS}
    assert told
    assert told.items() <= known.items(), "run scripts/conformance.py"
    assert f"holds {len(BEHAVIOURS)} behaviours" in page, "run scripts/conformance.py"


@pytest.mark.soak
@pytest.mark.root
@pytest.mark.timeout(600)
def test_page_is_true() -> None:
    program = ROOT / "scripts" / "conformance.py"
    done = subprocess.run(
        [sys.executable, program, "--check"], stdin=subprocess.DEVNULL, check=False
    )
    assert done.returncode == 0, "run scripts/conformance.py"
