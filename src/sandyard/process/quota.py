"""Owns the watch over a workspace's size: looks while commands run, and ends them when it is over."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from functools import partial

from sandyard.finishing import finished
from sandyard.limits import SCAN_PAUSE_S, SCAN_SHARE
from sandyard.process.job import Job

__all__ = ["Measure", "WorkspaceQuota"]

Measure = Callable[[threading.Event], Awaitable[int]]
"""Tells the bytes that a workspace takes; it may give up, with any answer, once the event is set."""


class WorkspaceQuota:
    """The size of a workspace, held as well as looking from time to time can.

    It looks while a job of the session is known, leftovers included, and once more after the last.
    It belongs to the loop on which it is used.

    Args:
        limit: bytes that the workspace may take.
        measure: tells what it takes.
    """

    def __init__(self, limit: int, measure: Measure) -> None:
        self.limit = limit
        self._measure = measure
        self._over = 0
        self._jobs: dict[int, Callable[[int], Awaitable[None]]] = {}
        self._task: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._stopped = threading.Event()

    async def size_over(self) -> int:
        """The workspace's size if it was, and still is, larger than allowed; else 0."""
        if self._over:
            await self._look()
        return self._over

    def watch(self, job: Job, end: Callable[[int], Awaitable[None]]) -> None:
        """Looks from time to time until nothing of a job is left.

        Args:
            job: the job.
            end: ends it, and is told the workspace's size.
        """
        if self._stopped.is_set():
            return
        self._jobs[job.number] = end
        if self._task is None:
            self._task = self._loop.create_task(self._watch())
        job.gone.then(partial(self._forget, job.number))

    def _forget(self, number: int) -> None:
        self._jobs.pop(number, None)

    async def close(self) -> None:
        """Stops looking."""
        self._stopped.set()  # a look under way gives up
        task, self._task = self._task, None
        if task is not None and not self._loop.is_closed():
            task.cancel()
            await finished(_ended(task))

    async def _watch(self) -> None:
        pause, last = SCAN_PAUSE_S, False
        while not last:
            await asyncio.sleep(pause)
            last = not self._jobs
            began = time.monotonic()
            await self._look()
            pause = max(SCAN_PAUSE_S, SCAN_SHARE * (time.monotonic() - began))
            if self._over:
                # Each is ended as by its own timeout, which may take a moment.
                await asyncio.gather(*(end(self._over) for end in [*self._jobs.values()]))
            last = last and not self._jobs  # one may have begun during the look
        self._task = None

    async def _look(self) -> None:
        size = await self._measure(self._stopped)
        if not self._stopped.is_set():
            self._over = size if size > self.limit else 0


async def _ended(task: asyncio.Task[None]) -> None:
    await asyncio.wait([task])
