"""What honest programs need works inside, also beside others that try to get out."""

from __future__ import annotations

import asyncio

import pytest

from sandyard import Policy, UnixLocalSandboxClient
from tests.escape.attacks import ESCAPED
from tests.escape.bait import Bait
from tests.escape.inside import sandbox
from tests.escape.kernel import NAMESPACES
from tests.escape.runner import exec_attack
from tests.escape.tools import TOOLS
from tests.escape.work import WORK, Work, is_possible, run_work


def skip_impossible(work: Work) -> None:
    if not is_possible(work):
        pytest.skip(f"this machine has no {work.program}")


@pytest.mark.parametrize("work", WORK, ids=lambda work: work.name)
async def test_work(work: Work) -> None:
    skip_impossible(work)
    client = UnixLocalSandboxClient()
    session = await client.create()
    async with session:
        await run_work(session, work)
    await client.delete(session)


async def work_beside_attacks(bait: Bait, work: Work) -> None:
    """Work while attacks are made in the same session, two at a time."""
    bait.reset()
    turns = asyncio.Semaphore(2)
    async with sandbox(Policy(syscalls=("ptrace",))) as session:

        async def make_attacks() -> None:
            for attack in NAMESPACES:
                async with turns:
                    result = await exec_attack(session, bait, attack)
                assert ESCAPED.encode() not in result.stdout, (attack.name, result)

        await asyncio.gather(make_attacks(), make_attacks(), run_work(session, work))
    assert not bait.damage()


@pytest.mark.parametrize("work", TOOLS, ids=lambda work: work.name)
def test_tool_beside_attacks(bait: Bait, work: Work) -> None:
    skip_impossible(work)
    asyncio.run(work_beside_attacks(bait, work))
