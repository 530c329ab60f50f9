"""The budget of descriptors: first come, first served, across tasks, loops and threads."""

from __future__ import annotations

import asyncio
import resource
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from sandyard.limits import DESCRIPTORS_FLOOR
from sandyard.process.budget import DescriptorBudget, budget_for
from tests.process.test_latch import let_run


async def queue_up(budget: DescriptorBudget, *counts: int) -> list[asyncio.Task[None]]:
    """Tasks that wait for descriptors, in this order."""
    tasks = []
    for count in counts:
        tasks.append(asyncio.create_task(budget.take(count)))
        await let_run()
    return tasks


def done(tasks: list[asyncio.Task[None]]) -> list[bool]:
    return [task.done() for task in tasks]


async def test_nobody_waits_while_there_is_room() -> None:
    budget = DescriptorBudget(10)
    await budget.take(6)
    assert budget.take_now(4)
    assert not budget.take_now(1)
    assert budget.used == 10
    budget.give(10)
    assert budget.used == 0


async def test_first_come_first_served() -> None:
    budget = DescriptorBudget(10)
    await budget.take(10)
    tasks = await queue_up(budget, 6, 1, 3, 4)
    for given, expected in (
        (1, [False, False, False, False]),  # the small ones do not overtake
        (5, [True, False, False, False]),
        (4, [True, True, True, False]),
        (5, [True, True, True, True]),
    ):
        budget.give(given)
        await let_run()
        assert done(tasks) == expected
    assert budget.used == 10 + 14 - 15


class Racing(DescriptorBudget):
    """One of which all is given back, as by another thread, just after it was found to be taken."""

    def take_now(self, count: int) -> bool:
        """Takes what there is, which is nothing yet."""
        taken = super().take_now(count)
        if not taken:
            self.give(10)
        return taken


async def test_nothing_is_given_back_in_between() -> None:
    budget = Racing(10)
    await budget.take(10)
    async with asyncio.timeout(5):
        await budget.take(4)
    assert budget.used == 4


async def test_taking_now_does_not_overtake() -> None:
    budget = DescriptorBudget(10)
    await budget.take(8)
    tasks = await queue_up(budget, 5)
    assert not budget.take_now(1)
    late = (await queue_up(budget, 1))[0]
    budget.give(8)
    await asyncio.gather(*tasks, late)
    assert budget.used == 6


async def test_more_than_all_waits_for_nobody_else() -> None:
    budget = DescriptorBudget(10)
    await budget.take(1)
    (large,) = await queue_up(budget, 100)
    small = (await queue_up(budget, 1))[0]
    assert not large.done()
    budget.give(1)
    await large
    await let_run()
    assert not small.done()
    assert budget.used == 100
    budget.give(100)
    await small
    assert budget.used == 1


@pytest.mark.parametrize("victim", [0, 1, 2])
async def test_cancelled_while_waiting(victim: int) -> None:
    budget = DescriptorBudget(10)
    await budget.take(9)
    tasks = await queue_up(budget, 8, 1, 1)
    tasks[victim].cancel()
    await let_run()
    assert done(tasks) == [[True, True, False], [False, True, False], [False, False, True]][victim]
    budget.give(9)
    await asyncio.gather(*tasks, return_exceptions=True)
    assert budget.used == 10 - (8, 1, 1)[victim]


@pytest.mark.parametrize("turns", [0, 1])
async def test_cancelled_in_the_moment_of_admission(turns: int) -> None:
    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    budget = DescriptorBudget(10)
    await budget.take(10)
    first, second = await queue_up(budget, 10, 10)
    budget.give(10)
    assert budget.used == 10  # it is admitted, and does not know yet
    for _ in range(turns):
        await asyncio.sleep(0)
    assert not first.done()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await second
    assert budget.used == 10
    budget.give(10)
    assert budget.used == 0
    assert told == []


async def test_held_is_given_back() -> None:
    budget = DescriptorBudget(10)
    turns = []
    for error in (None, ZeroDivisionError, asyncio.CancelledError):
        with suppress(ZeroDivisionError, asyncio.CancelledError):
            async with budget.hold(7):
                turns.append(budget.used)
                if error is not None:
                    raise error
        assert budget.used == 0
    assert turns == [7, 7, 7]


def test_two_loops_in_two_threads() -> None:
    budget = DescriptorBudget(3)
    most, lock = [0], threading.Lock()
    start = threading.Barrier(2)

    async def take_turn(count: int) -> None:
        async with budget.hold(count):
            with lock:
                most[0] = max(most[0], budget.used)
            await let_run()

    async def take_turns() -> None:
        await asyncio.gather(*(take_turn(1 + n % 3) for n in range(200)))

    def run() -> None:
        start.wait(5)
        asyncio.run(asyncio.wait_for(take_turns(), 20))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(25)
    assert not any(thread.is_alive() for thread in threads)
    assert (budget.used, most) == (0, [3])


def test_other_loop_is_woken() -> None:
    budget = DescriptorBudget(1)
    assert budget.take_now(1)
    waits, got = threading.Event(), threading.Event()

    async def wait_for_turn() -> None:
        asyncio.get_running_loop().call_soon(waits.set)
        await budget.take(1)
        got.set()

    thread = threading.Thread(target=lambda: asyncio.run(wait_for_turn()))
    thread.start()
    assert waits.wait(5)
    assert not got.is_set()
    budget.give(1)  # from a thread that has no loop
    assert got.wait(5)
    thread.join(5)
    assert budget.used == 1


class ClosingLoop(asyncio.SelectorEventLoop):
    """A loop that is closed by its thread just as somebody else calls it."""

    closing = False

    def call_soon_threadsafe(  # type: ignore[override]  # passed on as it comes
        self,
        *args: Any,  # noqa: ANN401
        **options: Any,  # noqa: ANN401
    ) -> asyncio.Handle:
        """Closes first, if it is time."""
        if self.closing:
            self.closing = False
            self.close()
        return super().call_soon_threadsafe(*args, **options)


@pytest.fixture
def loop() -> Iterator[ClosingLoop]:
    made = ClosingLoop()
    made.set_exception_handler(lambda *_: None)  # that a task was destroyed is what is tested
    try:
        yield made
    finally:
        made.closing = False
        made.close()


async def leave_waiting(budget: DescriptorBudget) -> asyncio.Task[None]:
    return (await queue_up(budget, 2))[0]


@pytest.mark.parametrize("race", [False, True], ids=["before", "in that moment"])
def test_waiter_of_a_closed_loop_is_skipped(loop: ClosingLoop, race: bool) -> None:
    budget = DescriptorBudget(2)
    assert budget.take_now(2)
    waiter = loop.run_until_complete(leave_waiting(budget))
    if race:
        loop.closing = True
    else:
        loop.close()
    budget.give(2)
    assert budget.used == 0
    assert budget.take_now(2)
    budget.give(2)
    assert not waiter.done()


@pytest.mark.parametrize(
    ("soft", "expected"),
    [
        (0, DESCRIPTORS_FLOOR),
        (64, DESCRIPTORS_FLOOR),
        (144, 16),
        (145, 17),
        (256, 128),
        (320, 192),
        (1024, 614),
        (1_048_576, 629_145),
    ],
)
def test_share_of_a_limit(soft: int, expected: int) -> None:
    assert budget_for(soft) == expected


def test_limit_follows_the_process() -> None:
    budget = DescriptorBudget()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        for number in (400, 256, soft):
            resource.setrlimit(resource.RLIMIT_NOFILE, (number, hard))
            assert budget.limit() == budget_for(number)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_lower_limit_takes_nothing_away() -> None:
    budget = DescriptorBudget()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (400, hard))
        await budget.take(240)
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        tasks = await queue_up(budget, 1)
        budget.give(112)  # to 128, which is all there is now
        await let_run()
        assert done(tasks) == [False]
        budget.give(1)
        await asyncio.gather(*tasks)
        assert budget.used == 128
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
