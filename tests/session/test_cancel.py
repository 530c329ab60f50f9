"""Cancelling a call at any moment leaves nothing: no process, no descriptor, no budget."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from sandyard import ExecTimeoutError, UnixLocalSandboxClient, UnixLocalSandboxSession
from sandyard.process.budget import descriptor_budget
from tests.session.host import (
    find_survivors,
    living_processes,
    make_dice,
    make_token,
    open_descriptors,
    root_of,
    until,
)

Session = UnixLocalSandboxSession


async def test_cancelling_ends_the_tree(session: Session) -> None:
    token = make_token()
    task = asyncio.create_task(
        session.exec(
            f"setsid sleep {token} & (trap '' TERM; sleep {token}) & touch up; sleep {token}"
        )
    )
    await until((root_of(session) / "up").exists)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert find_survivors(token) == []


async def test_random_moments_leave_nothing(session: Session) -> None:
    dice = make_dice(7)
    token = make_token()

    async def feed() -> AsyncIterator[bytes]:
        while True:
            yield bytes(10_000)
            await asyncio.sleep(0)

    await asyncio.gather(*(session.exec("sleep 0.05") for _ in range(4)))
    before = open_descriptors()
    for number in range(60):
        stdin = feed() if number % 3 == 0 else None
        command = f"setsid sleep {token} & yes | head -c 100000; sleep {token}"
        task = asyncio.create_task(session.exec(command, stdin=stdin))
        # Not to wait for something: the moment itself is what varies.
        if number % 2:
            await asyncio.sleep(dice.expovariate(1 / 0.003))
        else:
            for _ in range(dice.randrange(12)):
                await asyncio.sleep(0)
        task.cancel()
        if number % 5 == 0:
            await asyncio.sleep(0)
            task.cancel()  # a second one, while the first is being served
        with pytest.raises(asyncio.CancelledError):
            await task
        assert find_survivors(token) == [], number
    assert descriptor_budget.used == 0
    assert open_descriptors() == before
    assert (await session.exec("echo hi")).stdout == b"hi\n"


async def test_many_at_once_leave_nothing(session: Session) -> None:
    token = make_token()
    before = open_descriptors()
    tasks = [
        asyncio.create_task(session.exec(f"setsid sleep {token} & sleep {token}"))
        for _ in range(40)
    ]
    await until(lambda: len(find_survivors(token)) > 20)
    for task in tasks:
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {asyncio.CancelledError}
    assert find_survivors(token) == []
    assert descriptor_budget.used == 0
    assert open_descriptors() == before


async def test_outer_timeout_cancels(session: Session) -> None:
    token = make_token()
    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(0.2):
            await session.exec(f"setsid sleep {token} & sleep {token}")
    assert not isinstance(caught.value, ExecTimeoutError)
    assert find_survivors(token) == []


async def test_cancellation_and_timeout_together(session: Session) -> None:
    token = make_token()
    for delay in (0.047, 0.049, 0.05, 0.051, 0.053):
        task = asyncio.create_task(session.exec(f"sleep {token}", timeout=0.05))
        await asyncio.sleep(delay)
        task.cancel()
        with suppress(asyncio.CancelledError, ExecTimeoutError):
            await task
        assert find_survivors(token) == []
    assert descriptor_budget.used == 0


async def test_a_group_that_fails_ends_its_commands(session: Session) -> None:
    token = make_token()

    async def fail() -> None:
        await until(lambda: len(find_survivors(token)) == 2)
        raise LookupError

    async def run_group() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(session.exec(f"exec sleep {token}"))
            group.create_task(session.exec(f"exec sleep {token}"))
            group.create_task(fail())

    with pytest.raises(ExceptionGroup):
        await run_group()
    assert find_survivors(token) == []


async def test_starts_cancelled_at_random_moments(client: UnixLocalSandboxClient) -> None:
    dice = make_dice(3)
    processes = living_processes()
    for _ in range(25):
        session = await client.create()
        task = asyncio.create_task(session.start())
        await asyncio.sleep(dice.uniform(0, 0.03))
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        root = root_of(session)
        await client.delete(session)
        assert not root.exists()
    await until(lambda: living_processes() <= processes)


async def test_a_cancelled_start_can_be_repeated(client: UnixLocalSandboxClient) -> None:
    session = await client.create()
    task = asyncio.create_task(session.start())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await session.start()
    assert (await session.exec("echo hi")).stdout == b"hi\n"
    await client.delete(session)


async def test_cancelled_shutdown_still_ends_all(client: UnixLocalSandboxClient) -> None:
    token = make_token()
    session = await client.create()
    await session.start()
    await session.exec(f"setsid sleep {token} & echo")
    task = asyncio.create_task(session.shutdown())
    await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    await until(lambda: not find_survivors(token))
    await client.delete(session)


class Endless(io.RawIOBase):
    """A stream that has no end."""

    def read(self, size: int = -1) -> bytes:
        """Some more of it."""
        time.sleep(0.001)
        return bytes(min(size, 100))


async def test_cancelled_write_of_endless_stream(session: Session) -> None:
    await session.write("file", b"before")
    task = asyncio.create_task(session.write("file", Endless()))
    await asyncio.sleep(0.2)
    assert not task.done()
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=10)
    assert done
    assert task.cancelled()
    assert (root_of(session) / "file").read_bytes() == b"before"
    assert [entry.name for entry in root_of(session).iterdir()] == ["file"]
