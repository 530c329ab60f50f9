"""Very many commands in one session: nothing grows, whether they end well, are left, or are ended."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress

import pytest

from sandyard import ExecTimeoutError, UnixLocalSandboxSession
from tests.house.leaks import list_children
from tests.session.host import find_init, find_survivors, make_token, until
from tests.soak.figures import Course, find_growth, look, token_of
from tests.soak.hostile import TREES

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]

Session = UnixLocalSandboxSession
Report = Callable[[str], None]

LOOKS = 20
AT_ONCE = 8


async def _each(numbers: Iterator[int], one: Callable[[int], Awaitable[object]]) -> None:
    for number in numbers:
        await one(number)


async def run_course(
    session: Session, what: str, count: int, one: Callable[[int], Awaitable[object]]
) -> str:
    """Do something ``count`` times, a few at once, and look twenty times; a tenth is the warm-up."""
    init, course = find_init(), Course(f"{count} {what}")
    for step in range(-LOOKS // 10, LOOKS):
        numbers = iter(range(step * count // LOOKS, (step + 1) * count // LOOKS))

        await asyncio.gather(*(_each(numbers, one) for _ in range(AT_ONCE)))
        # Keepers without work leave after a few seconds; the first one stays.
        await until(lambda: len(list(list_children(init))) == 1, within=20)
        if step >= -1:
            course.looks.append(look(init))
    assert await session.running()
    return course.judge()


async def test_10000_commands(session: Session, report: Report) -> None:
    async def one(number: int) -> None:
        word = token_of(number)
        result = await session.exec("sh", "-c", "cat; echo $0 >&2", word, shell=False, stdin=b"in")
        assert (result.stdout, result.stderr) == (b"in", word.encode() + b"\n")

    report(await run_course(session, "commands", 10_000, one))


async def test_5000_at_once(session: Session, report: Report) -> None:
    await session.exec("true")
    before = look(find_init())
    for _ in range(2):
        results = await asyncio.gather(
            *(session.exec("echo", str(number), shell=False) for number in range(5000))
        )
        assert [result.stdout for result in results] == [b"%d\n" % n for n in range(5000)]
        del results
    await until(lambda: len(list(list_children(find_init()))) == 1, within=20)
    after = look(find_init())
    assert not find_growth([before, after])
    report(
        "5000 commands at once, twice: all answered; "
        + ", ".join(f"{name} {count}" for name, count in after.exact.items())
    )


async def test_2000_abandoned_streams(session: Session, report: Report) -> None:
    async def leave(number: int) -> None:
        async with session.stream(f"yes {token_of(number)}") as running:
            await anext(running)

    async def leave_raising(number: int) -> None:
        with suppress(LookupError):
            async with session.stream(f"yes {token_of(number)} >&2 & yes") as running:
                async for _ in running:
                    raise LookupError

    async def leave_cancelled(number: int) -> None:
        async def read() -> None:
            async with session.stream(f"setsid yes {token_of(number)} & yes") as running:
                async for _ in running:
                    begun.set()

        begun = asyncio.Event()
        task = asyncio.create_task(read())
        await begun.wait()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    async def leave_unread(number: int) -> None:
        async with session.stream(f"yes {token_of(number)}"):
            pass

    ways = (leave, leave_raising, leave_cancelled, leave_unread)

    async def one(number: int) -> None:
        await ways[number % len(ways)](number)

    report(await run_course(session, "streams left half-way", 2000, one))
    assert (await session.exec("pgrep -c yes")).stdout.strip() in (b"", b"0")


async def test_500_hostile_timeouts(session: Session, report: Report) -> None:
    token, scripts = make_token(), list(TREES.values())

    async def one(number: int) -> None:
        with pytest.raises(ExecTimeoutError) as caught:
            await session.exec(scripts[number % len(scripts)].replace("@", token), timeout=0.15)
        assert "still_running" not in caught.value.context

    line = await run_course(session, "timeouts of hostile trees", 500, one)
    assert not find_survivors(token)
    report(line)
