"""Latches: set once, waited for by many, each of whom may give up alone."""

from __future__ import annotations

import asyncio
import gc

import pytest

from sandyard.process.latch import Latch


async def let_run() -> None:
    """Lets every task run to its next wait; the loop takes them in order."""
    for _ in range(5):
        await asyncio.sleep(0)


def test_value_is_set_once() -> None:
    latch: Latch[int] = Latch()
    assert (latch.is_set, latch.get()) == (False, None)
    latch.set(1)
    latch.set(2)
    assert (latch.is_set, latch.get()) == (True, 1)


def test_nothing_is_a_value() -> None:
    latch: Latch[None] = Latch()
    latch.set(None)
    assert latch.is_set


async def test_many_wait() -> None:
    latch: Latch[str] = Latch()
    waiting = [asyncio.create_task(latch.wait(timeout)) for timeout in (None, 50, None)]
    await let_run()
    assert not any(task.done() for task in waiting)
    latch.set("now")
    assert await asyncio.gather(*waiting) == [True] * 3
    assert await latch.wait()
    assert await latch.wait(0)


@pytest.mark.parametrize("victim", [0, 1, 2])
async def test_one_gives_up_alone(victim: int) -> None:
    latch: Latch[int] = Latch()
    waiting = [asyncio.create_task(latch.wait()) for _ in range(3)]
    await let_run()
    waiting[victim].cancel()
    await let_run()
    assert [task.done() for task in waiting] == [n == victim for n in range(3)]
    assert not latch.is_set
    latch.set(5)
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert [outcome is True for outcome in outcomes] == [n != victim for n in range(3)]
    assert isinstance(outcomes[victim], asyncio.CancelledError)


@pytest.mark.parametrize("first", ["set", "cancel"])
async def test_set_and_cancelled_at_once(first: str) -> None:
    latch: Latch[int] = Latch()
    waiting, other = (asyncio.create_task(latch.wait()) for _ in range(2))
    await let_run()
    if first == "set":
        latch.set(1)
    waiting.cancel()
    latch.set(1)
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await other
    assert latch.get() == 1


async def test_wait_has_an_end() -> None:
    latch: Latch[int] = Latch()
    patient = asyncio.create_task(latch.wait())
    assert not await latch.wait(0)
    assert not await latch.wait(0.01)
    assert not patient.done()
    latch.set(1)
    assert await patient


async def test_who_gave_up_is_forgotten() -> None:
    latch: Latch[int] = Latch()
    patient = asyncio.create_task(latch.wait())
    for _ in range(3):
        assert not await latch.wait(0)
    (waiters,) = (kept for kept in gc.get_referents(latch) if isinstance(kept, list))
    assert len(waiters) == 1
    latch.set(1)
    await patient


async def test_value_in_the_moment_of_the_end() -> None:
    latch: Latch[int] = Latch()
    waiting = asyncio.create_task(latch.wait(0))
    asyncio.get_running_loop().call_soon(latch.set, 1)
    assert await waiting


async def test_timers_do_not_stay() -> None:
    latch: Latch[int] = Latch()
    waiting = [asyncio.create_task(latch.wait(1000)) for _ in range(2)]
    await let_run()
    timers = [timer for timer in scheduled_timers() if not timer.cancelled()]
    assert len(timers) >= 2
    waiting[0].cancel()
    latch.set(1)
    await asyncio.gather(*waiting, return_exceptions=True)
    assert all(timer.cancelled() for timer in timers if timer.when() > loop_time() + 500)


def loop_time() -> float:
    return asyncio.get_running_loop().time()


def scheduled_timers() -> list[asyncio.TimerHandle]:
    """What the running loop has yet to call at some time."""
    timers: list[asyncio.TimerHandle] = vars(asyncio.get_running_loop())["_scheduled"]
    return list(timers)


def test_callbacks_come_once_and_in_order() -> None:
    latch: Latch[int] = Latch()
    told: list[object] = []
    for name in "abc":
        latch.then(lambda name=name: told.append((name, latch.get())))  # type: ignore[misc]
    assert told == []
    latch.set(7)
    latch.set(8)
    assert told == [("a", 7), ("b", 7), ("c", 7)]
    latch.then(lambda: told.append("late"))
    assert told[-1] == "late"


def test_callback_may_ask_for_another() -> None:
    latch: Latch[int] = Latch()
    told: list[str] = []
    latch.then(lambda: latch.then(lambda: told.append("inner")))
    latch.then(lambda: told.append("outer"))
    latch.set(1)
    assert told == ["inner", "outer"]


async def test_callbacks_and_waiters_are_independent() -> None:
    latch: Latch[int] = Latch()
    told: list[bool] = []
    latch.then(lambda: told.append(latch.is_set))
    waiting = asyncio.create_task(latch.wait())
    await let_run()
    waiting.cancel()
    await let_run()
    latch.set(1)
    assert told == [True]
