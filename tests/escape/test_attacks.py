"""Every attack gets out without the wall, and not with it; honest work goes on beside them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.escape.attacks import ESCAPED, Attack
from tests.escape.bait import Bait
from tests.escape.doors import LOCAL, NETWORK, TERMINALS
from tests.escape.granted import GRANTED
from tests.escape.kernel import NAMESPACES, PRIVILEGES, SURFACE
from tests.escape.reading import READING
from tests.escape.runner import confine, exec_attack, run_attack
from tests.escape.work import WORK, is_possible, run_work
from tests.escape.writing import SETTING_BITS, WRITING

CLASSES = {
    "reading": READING,
    "writing": WRITING,
    "bits": SETTING_BITS,
    "namespaces": NAMESPACES,
    "privileges": PRIVILEGES,
    "surface": SURFACE,
    "local": LOCAL,
    "network": NETWORK,
    "terminals": TERMINALS,
    "granted": GRANTED,
}


def name_attacks() -> Iterator[object]:
    """Each attack under its class's name and its own."""
    for kind, attacks in CLASSES.items():
        for attack in attacks:
            yield pytest.param(attack, id=f"{kind}-{attack.name}")


def test_names_are_unique() -> None:
    for kind, attacks in CLASSES.items():
        names = [attack.name for attack in attacks]
        assert len(set(names)) == len(names), kind


@pytest.mark.parametrize("attack", list(name_attacks()))
def test_attack(bait: Bait, attack: Attack) -> None:
    run_attack(bait, attack)


async def attack_and_work(bait: Bait, kind: str) -> None:
    """Make all attacks of a class in one session, four at a time, and then do honest work in it."""
    turns = asyncio.Semaphore(4)
    async with confine(bait, ("granted",) if kind == "granted" else ()) as session:

        async def make(attack: Attack) -> None:
            async with turns:
                result = await exec_attack(session, bait, attack)
            assert ESCAPED.encode() not in result.stdout, (attack.name, result)

        await asyncio.gather(*map(make, CLASSES[kind]))
        for work in WORK:
            if not work.slow and is_possible(work):
                await run_work(session, work)
    assert not bait.damage()


@pytest.mark.parametrize("kind", CLASSES)
def test_work_after_attacks(bait: Bait, kind: str) -> None:
    asyncio.run(attack_and_work(bait, kind))
