"""A verb that is cancelled at any of its suspensions leaves nothing, and says what it must."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

from sandyard import SessionClosedError, UnixLocalSandboxSession
from sandyard.process.budget import descriptor_budget
from tests.faults.awaits import Moment, interrupt
from tests.faults.keeping import KEEPING
from tests.faults.programs import run_python
from tests.faults.verbs import VERBS, Place, Verb
from tests.session.host import (
    find_survivors,
    living_processes,
    make_token,
    open_descriptors,
    until,
)

SUSPENSIONS = 400
"""More than any verb has; a test that gets there does not end."""

EACH = 12
STRIDE = 6
"""Of the first suspensions each is tried, then every sixth: a stream has one for each chunk."""

QUICK = ("save", "apply")
"""Of the verbs that keep a workspace, those that each run of the tests tries."""


def look_around() -> dict[str, set[str]]:
    """What a verb could leave behind, apart from threads, which the fixture of all tests finds."""
    return {
        "descriptors": open_descriptors(),
        "processes": {str(pid) for pid in living_processes()},
        "files": set(os.listdir(tempfile.gettempdir())),
        "tasks": {repr(task) for task in asyncio.all_tasks() if not current(task)},
        "budget": {str(descriptor_budget.used)},
    }


def current(task: asyncio.Task[object]) -> bool:
    return task is asyncio.current_task()


@asynccontextmanager
async def gives_back() -> AsyncIterator[None]:
    """Take away what a failure leaves, so that only the test that found it fails."""
    before = look_around()
    try:
        yield
    finally:
        tasks = [task for task in asyncio.all_tasks() if not current(task)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        after = look_around()
        for opened in after["descriptors"] - before["descriptors"]:
            with suppress(OSError):
                os.close(int(opened.split()[0]))
        for name in after["files"] - before["files"]:
            shutil.rmtree(Path(tempfile.gettempdir(), name), ignore_errors=True)
        descriptor_budget.give(descriptor_budget.used)


async def is_usable(session: UnixLocalSandboxSession) -> bool:
    """Whether it runs commands; if it does not, it has to say so."""
    try:
        result = await session.exec("echo on")
    except SessionClosedError:
        assert not await session.running()
        return False
    assert result.stdout == b"on\n"
    return True


async def try_moment(place: Place, verb: Verb, moment: Moment, number: int) -> bool:
    """Interrupt a verb once; returns False where it has no such suspension."""
    before = look_around()
    await place.prepare(verb)
    amid = look_around()
    try:
        reached = await interrupt(verb.act(place), moment, number)
        assert find_survivors(place.token) == []
        if verb.keeps and not verb.leaves:
            now = look_around()
            assert {kind: now[kind] - amid[kind] for kind in ("tasks", "budget")} == {
                "tasks": set(),
                "budget": set(),
            }
        if verb.after is not None:
            await verb.after(place)
        if place.made is not None:
            assert await is_usable(place.made) or not verb.keeps
    finally:
        await place.clear()
    with suppress(AssertionError):
        await until(lambda: look_around() == before, within=1)
    after = look_around()
    assert {kind: after[kind] - before[kind] for kind in after} == {kind: set() for kind in after}
    return reached


def list_cases() -> Iterator[ParameterSet]:
    for name in VERBS | KEEPING:
        marks = [pytest.mark.soak] if name in KEEPING and name not in QUICK else []
        for moment in Moment:
            yield pytest.param(name, moment, marks=marks, id=f"{name}-{moment}")


@pytest.mark.parametrize(("name", "moment"), list(list_cases()))
async def test_cancelled_at_every_await(name: str, moment: Moment, tmp_path: Path) -> None:
    verb = (VERBS | KEEPING)[name]
    place = Place(tmp_path / "source", make_token())
    place.fill_source()
    async with gives_back():
        for number in (*range(1, EACH), *range(EACH, SUSPENSIONS, STRIDE)):
            if not await try_moment(place, verb, moment, number):
                break
        else:
            pytest.fail("it does not end")
    assert number > 1, "it was never interrupted"


def test_loop_ends_at_every_await(tmp_path: Path) -> None:
    done = run_python(["-m", "tests.faults.ending", str(tmp_path / "source")], tmp_path)
    assert json.loads(done) == {}
