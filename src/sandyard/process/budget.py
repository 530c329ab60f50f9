"""Owns the count of descriptors that commands may hold at once, for the whole host program.

The caller's limits are never raised: beyond the budget, commands wait for their turn, in order.
"""

from __future__ import annotations

import asyncio
import os
import resource
import threading
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sandyard.limits import (
    DESCRIPTORS_FLOOR,
    DESCRIPTORS_RESERVED,
    DESCRIPTORS_SHARE,
    DESCRIPTORS_SPARED,
)

__all__ = ["DescriptorBudget", "budget_for", "descriptor_budget", "has_room"]


def budget_for(soft_limit: int) -> int:
    """How many descriptors commands may hold where the process may hold ``soft_limit``.

    The reserve is the host program's own. The share keeps descriptors that travel to init (each
    counts against the same number while it is in flight, see unix(7), ETOOMANYREFS) below the limit.
    """
    after_reserve = soft_limit - DESCRIPTORS_RESERVED
    return max(DESCRIPTORS_FLOOR, min(after_reserve, int(soft_limit * DESCRIPTORS_SHARE)))


def has_room(count: int) -> bool:
    """Whether this program may have ``count`` more descriptors just now; the budget can't know what it opens."""
    held: list[int] = []
    try:
        while len(held) < count:
            held.append(os.eventfd(0, os.EFD_CLOEXEC))
    except OSError:
        return False
    finally:
        for fd in held:
            os.close(fd)
    return True


class DescriptorBudget:
    """A first-come-first-served counter shared by all loops and threads of the process."""

    def __init__(self, limit: int | None = None) -> None:
        self._fixed = limit
        self._used = 0
        self._lasting = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._lock = (
            threading.Lock()
        )  # protects the counts and _waiting; held for a few instructions

    def limit(self) -> int:
        """The budget now: the process's soft limit may change while it runs."""
        if self._fixed is not None:
            return self._fixed
        return budget_for(resource.getrlimit(resource.RLIMIT_NOFILE)[0])

    @property
    def used(self) -> int:
        """Descriptors that are taken."""
        return self._used

    def settle_in(self, count: int) -> bool:
        """Notes that somebody will hold ``count`` descriptors for long; tells whether they may.

        Those that come and go always have some left over. The descriptors are taken as by others.
        """
        with self._lock:
            if self._lasting + count > self.limit() - DESCRIPTORS_SPARED:
                return False
            self._lasting += count
            return True

    def move_out(self, count: int) -> None:
        """Those that were noted are not held any more."""
        with self._lock:
            self._lasting -= count

    def take_now(self, count: int) -> bool:
        """Takes ``count`` descriptors if that needs no waiting; tells whether it did."""
        with self._lock:
            if self._waiting or (self._used and not self._fits(count)):
                return False
            self._used += count
            return True

    async def take(self, count: int) -> None:
        """Takes ``count`` descriptors, waiting for as long as there are not enough.

        More than the whole budget is granted when nothing else is taken, so that nobody waits for
        ever.
        """
        if self.take_now(count):
            return
        with self._lock:  # in between another thread may have given back all, and woken nobody
            if not self._waiting and self._fits(count):
                self._used += count
                return
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((count, turn))
        try:
            await turn
        except asyncio.CancelledError:
            self._leave(count, turn)
            raise

    def give(self, count: int) -> None:
        """Gives back what was taken."""
        with self._lock:
            self._used -= count
            if self._waiting:
                self._admit()

    @asynccontextmanager
    async def hold(self, count: int) -> AsyncIterator[None]:
        """Takes ``count`` descriptors for the length of a block."""
        await self.take(count)
        try:
            yield
        finally:
            self.give(count)

    def _fits(self, count: int) -> bool:
        return self._used == 0 or self._used + count <= self.limit()

    def _leave(self, count: int, turn: asyncio.Future[None]) -> None:
        with self._lock:
            if (count, turn) in self._waiting:
                self._waiting.remove((count, turn))
            else:  # admitted in the very moment of the cancellation
                self._used -= count
            self._admit()

    def _admit(self) -> None:
        while self._waiting and self._fits(self._waiting[0][0]):
            count, turn = self._waiting.popleft()
            try:
                turn.get_loop().call_soon_threadsafe(_wake, turn)
            except RuntimeError:  # its loop was closed without cancelling it
                continue
            self._used += count


def _wake(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_result(None)


descriptor_budget = DescriptorBudget()
"""The one budget of this process: descriptors are the process's, not a session's."""
