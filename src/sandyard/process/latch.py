"""Owns what may be waited for by many, each of whom may give up alone: a value that is set once, stillness."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sized
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from sandyard.process.stilling import StillOrder

__all__ = ["Latch", "Stillness", "wake"]

T = TypeVar("T")


class Latch(Generic[T]):
    """A one-shot value. Unlike a future, it survives the cancellation of whoever waits for it.

    Attributes:
        is_set: whether the value is there.
    """

    __slots__ = ("_callbacks", "_value", "_waiters", "is_set")

    def __init__(self) -> None:
        self.is_set = False
        self._value: T | None = None
        # Made when needed: most latches of a command have no callback, and one waiter or none.
        self._waiters: list[asyncio.Future[None]] | None = None
        self._callbacks: list[Callable[[], None]] | None = None

    def get(self) -> T | None:
        """The value, or None while it is not there."""
        return self._value

    def set(self, value: T) -> None:
        """Sets the value, wakes everybody; a second value is ignored."""
        if self.is_set:
            return
        self.is_set = True
        self._value = value
        if self._waiters is not None:
            for waiter in self._waiters:
                wake(waiter)
        if self._callbacks is not None:
            for callback in self._callbacks:
                callback()

    def then(self, callback: Callable[[], None]) -> None:
        """Calls ``callback`` when the value is there, which may be now."""
        if self.is_set:
            callback()
        else:
            self._callbacks = [*(self._callbacks or ()), callback]

    async def wait(self, timeout_s: float | None = None) -> bool:
        """Waits until the value is there.

        Args:
            timeout_s: seconds to wait, or None.

        Returns:
            False if it was not there in time.
        """
        if self.is_set:
            return True
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        timer = None if timeout_s is None else loop.call_later(timeout_s, wake, waiter)
        waiters = self._waiters = self._waiters or []
        waiters.append(waiter)
        try:
            await waiter
        finally:
            waiters.remove(waiter)
            if timer is not None:
                timer.cancel()
        return self.is_set


def wake(waiter: asyncio.Future[None]) -> None:
    """Wakes whoever waits; on a loop that is closed nobody does any more."""
    if not waiter.done() and not waiter.get_loop().is_closed():
        waiter.set_result(None)


class Stillness:
    """What a sandbox's commands wait for before they are sent, while somebody holds it still.

    Args:
        outer: number of the sandbox's outer process.
        jobs: the commands that were sent and of which something is left.
        tell_all: has init stop all at once, or let them go on; None where it can't meet them alone.

    Attributes:
        told: what init was last asked for.
        turn: of who holds it: one lets only those go on that it stopped itself.
        over: set when it is over; None where nobody holds anything.
    """

    def __init__(
        self, outer: int, jobs: Sized, tell_all: Callable[[bool], Awaitable[StillOrder]] | None
    ) -> None:
        self.outer = outer
        self.jobs = jobs
        self.tell_all = tell_all
        self.told: StillOrder | None = None
        self.turn = asyncio.Lock()
        self.over: asyncio.Event | None = None

    async def wait_over(self) -> None:
        """Return when commands may be begun: at once where nobody holds them."""
        while self.over is not None:
            await self.over.wait()
