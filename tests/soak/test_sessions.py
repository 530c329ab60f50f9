"""Very many sessions, one after another and at once: each leaves the machine as it was."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable

import pytest

from sandyard import Policy, UnixLocalSandboxClient
from sandyard.confinement import WorkspaceRoot, plan_session
from sandyard.platform import host_facts
from sandyard.process.report import untold_step
from sandyard.process.wire import Started, encode_records
from sandyard.workspace import Inode
from tests.house.leaks import find_descendants
from tests.session.host import until
from tests.soak.figures import Course, look, token_of

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]

Client = UnixLocalSandboxClient
Report = Callable[[str], None]

LOOKS = 20

CACHED_STEPS = 1100
"""Sessions after which the cache of mount steps is full, with some to spare."""

POOL_THREADS = 64
"""More than the loop's own pool has at most (min(32, processors + 4)): it starts one when all work."""


async def live(client: Client, number: int, commands: int) -> None:
    """A whole session with files and commands, one of which leaves something running."""
    session = await client.create()
    async with session:
        await session.write("given", token_of(number).encode())
        outputs = await asyncio.gather(
            *(session.exec("cat given; sleep 1000 &", timeout=120) for _ in range(commands))
        )
        assert {each.stdout for each in outputs} == {token_of(number).encode()}
        assert [entry.size for entry in await session.ls(".")] == [len(token_of(number))]
    await client.delete(session)


def fill_steps() -> None:
    """Fill the caches of encoded mount steps and their meaning, one of which names the workspace.

    They keep the last thousand: of sessions that have ended, too, and that is no growth without end.
    """
    facts = host_facts(os.environ)
    for number in range(CACHED_STEPS):
        inode = Inode(device=10**6 + number, number=10**9 + number)  # objects, as real ones are
        root = WorkspaceRoot(f"/tmp/filler/{number}", f"/tmp/filler/{number}", inode)
        untold_step(encode_records(plan_session(Policy(), facts, root, ()), 0, 0), Started(()))


async def fill_caches() -> None:
    """What grows to a size of its own and no further has it from the beginning."""
    await asyncio.to_thread(fill_steps)
    await asyncio.gather(*(asyncio.to_thread(time.sleep, 0.05) for _ in range(POOL_THREADS)))


async def settle() -> None:
    """What was ended has also gone."""
    await until(lambda: not find_descendants(), within=20)


async def test_1000_sessions_in_turn(client: Client, report: Report) -> None:
    await fill_caches()
    course = Course("1000 sessions, one after another")
    for step in range(-2, LOOKS):
        for number in range(1000 // LOOKS):
            await live(client, step * 1000 + number, 2)
        await settle()
        if step >= -1:
            course.looks.append(look())
    report(course.judge())


async def test_100_sessions_at_once(client: Client, report: Report) -> None:
    await fill_caches()
    course = Course("100 sessions at once, 10 commands in each, 12 times")
    for step in range(12):
        await asyncio.gather(*(live(client, step * 100 + number, 10) for number in range(100)))
        await settle()
        if step >= 1:
            course.looks.append(look())
    report(course.judge())
