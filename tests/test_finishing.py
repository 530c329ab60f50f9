"""Work that is finished whatever happens to whoever waits for it."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading

import pytest

from sandyard.finishing import finished, in_thread
from tests.process.test_latch import let_run


class Work:
    """Clean-up work that waits until the test lets it go on."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.begun = asyncio.Event()
        self.may_end = asyncio.Event()
        self.ended = False
        self._error = error

    async def run(self) -> int:
        self.begun.set()
        await self.may_end.wait()
        self.ended = True
        if self._error is not None:
            raise self._error
        return 42


async def begin(work: Work) -> asyncio.Task[int]:
    task = asyncio.create_task(finished(work.run()))
    await work.begun.wait()
    return task


async def test_result_is_given() -> None:
    work = Work()
    task = await begin(work)
    work.may_end.set()
    assert await task == 42


async def test_error_is_raised() -> None:
    work = Work(KeyError("x"))
    task = await begin(work)
    work.may_end.set()
    with pytest.raises(KeyError):
        await task


async def test_work_that_does_not_wait() -> None:
    async def nothing() -> str:
        return "done"

    assert await finished(nothing()) == "done"


@pytest.mark.parametrize("times", [1, 2, 20])
@pytest.mark.parametrize("error", [None, KeyError("lost")])
async def test_cancellation_waits(times: int, error: Exception | None) -> None:
    work = Work(error)
    task = await begin(work)
    for _ in range(times):
        task.cancel()
        await let_run()
        assert not task.done()
    work.may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (work.ended, task.cancelled()) == (True, True)


async def test_cancelled_many_times_at_once() -> None:
    work = Work()
    task = await begin(work)
    for _ in range(3):
        task.cancel()
    await let_run()
    assert not task.done()
    work.may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert work.ended


async def test_cancelled_before_it_began() -> None:
    work = Work()
    task = asyncio.create_task(finished(work.run()))
    await asyncio.sleep(0)  # the work is a task that has had no turn yet
    task.cancel()
    await work.begun.wait()
    work.may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert work.ended


async def test_cancelled_in_the_moment_of_the_end() -> None:
    work = Work()
    task = await begin(work)
    work.may_end.set()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert work.ended


async def test_error_of_a_cancelled_one_is_not_reported_as_lost() -> None:
    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    work = Work(KeyError("lost"))
    task = await begin(work)
    task.cancel()
    work.may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    del task, work
    await let_run()  # the loop forgets them as well
    gc.collect()
    assert told == []


async def test_work_that_cancels_itself() -> None:
    work = Work(asyncio.CancelledError())
    task = await begin(work)
    work.may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_timeout_waits_and_is_told_as_one() -> None:
    work = Work()

    async def in_time() -> None:
        async with asyncio.timeout(0):
            await finished(work.run())

    task = asyncio.create_task(in_time())
    await work.begun.wait()
    await let_run()
    assert not task.done()
    work.may_end.set()
    with pytest.raises(TimeoutError):
        await task
    assert work.ended


# --- in a thread ----------------------------------------------------------------------------------


async def test_thread_gives_its_result() -> None:
    variable = contextvars.ContextVar("variable", default="none")
    variable.set("ours")

    def compute(one: int, *, two: int) -> tuple[int, bool, str]:
        return one + two, threading.current_thread() is threading.main_thread(), variable.get()

    assert await in_thread(compute, 1, two=2) == (3, False, "ours")


async def test_thread_raises_its_error() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        await in_thread(int, "x")


@pytest.mark.parametrize("times", [1, 5])
@pytest.mark.parametrize("fails", [False, True])
async def test_cancellation_waits_for_the_thread(times: int, fails: bool) -> None:
    begun, may_end, ended = asyncio.Event(), threading.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def block() -> None:
        loop.call_soon_threadsafe(begun.set)
        may_end.wait(10)
        ended.set()
        if fails:
            raise KeyError

    task = asyncio.create_task(in_thread(block))
    await begun.wait()
    for _ in range(times):
        task.cancel()
        await let_run()
        assert not task.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()
