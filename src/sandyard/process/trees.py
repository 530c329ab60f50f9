"""Owns the end of whole trees: a command and all that it started, and what commands left behind."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import TYPE_CHECKING

from sandyard.finishing import all_finished
from sandyard.limits import (
    CLOSE_TIMEOUT_S,
    DESCRIPTORS_PER_LEFTOVER,
    END_FORCE_AFTER_S,
    END_GIVE_UP_AFTER_S,
    ENDS_AT_ONCE,
)
from sandyard.process.budget import descriptor_budget
from sandyard.process.capture import Dropping
from sandyard.process.init import SandboxEndedError
from sandyard.process.job import Job
from sandyard.process.pipes import OutputPipe

if TYPE_CHECKING:
    from sandyard.process.starter import Starter

__all__ = ["LeftoverOutputs", "end_in_turn", "end_leftovers", "end_patiently", "end_whole"]


async def end_whole(init: Starter, job: Job) -> None:
    """Ends a job's command and all that it started; returns when it is gone, or can't be ended."""
    # No asyncio.timeout: it cancels its task, and this one is not to be cancelled. A send that finds
    # no room gives up by itself.
    ended = job.gone if job.exited.is_set else job.exited
    with contextlib.suppress(SandboxEndedError):  # then the tree is gone as well
        await init.kill(job)
        if not await ended.wait(END_FORCE_AFTER_S):
            await init.kill(job, force=True)
            await ended.wait(END_GIVE_UP_AFTER_S - END_FORCE_AFTER_S)


async def end_leftovers(init: Starter) -> None:
    """Ends what is left of the jobs whose commands have exited."""
    await end_in_turn(partial(end_patiently, init, job) for job in init.leftovers())


async def end_patiently(init: Starter, job: Job) -> None:
    """Ends a job and all of it, where nobody waits for an answer within a second."""
    patience = time.monotonic() + CLOSE_TIMEOUT_S  # a tree of thousands takes its time
    with contextlib.suppress(SandboxEndedError):
        await init.kill(job)
        await job.gone.wait(CLOSE_TIMEOUT_S / 2)  # by the keeper, which knows whose they are
    while not job.gone.is_set and time.monotonic() < patience:
        await end_whole(init, job)


async def end_in_turn(endings: Iterable[Callable[[], Coroutine[None, None, None]]]) -> None:
    """Ends many trees, a few at a time: each is looked for among all processes of the sandbox."""
    turns = asyncio.Semaphore(ENDS_AT_ONCE)

    async def end(ending: Callable[[], Coroutine[None, None, None]]) -> None:
        async with turns:
            await ending()

    await all_finished(map(end, endings))


class LeftoverOutputs:
    """What leftovers write to: if nobody read it, their next write would end them, or wait for ever."""

    def __init__(self) -> None:
        self._drained: dict[int, list[OutputPipe]] = {}

    def drain(self, job: Job, outputs: list[OutputPipe]) -> None:
        """Read and drop what a command's leftovers write, until the last of them is gone.

        Takes over the outputs, and ``DESCRIPTORS_PER_LEFTOVER`` of the budget that were taken for them.

        Raises:
            OSError: the loop can't watch one more descriptor; what it has is closed with the job.
        """
        self._drained[job.number] = outputs
        job.gone.then(lambda: self._close_of(job.number))
        for output in outputs:
            output.divert(Dropping())
            output.resume()

    def close(self) -> None:
        """Close all of them."""
        for number in list(self._drained):
            self._close_of(number)

    def _close_of(self, number: int) -> None:
        outputs = self._drained.pop(number, None)
        if outputs is None:
            return
        for output in outputs:
            output.close()
        descriptor_budget.give(DESCRIPTORS_PER_LEFTOVER)
