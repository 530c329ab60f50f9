"""Owns work that is finished even when whoever waits for it is cancelled."""

from __future__ import annotations

import asyncio
import contextvars
import errno
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Generic, ParamSpec, TypeVar

from sandyard.errors import OpName, ResourceLimitError

__all__ = [
    "Work",
    "all_finished",
    "each_in_turn",
    "finished",
    "finishing",
    "in_stoppable_thread",
    "in_thread",
    "start_thread",
]

P = ParamSpec("P")
T = TypeVar("T")


class _Unstoppable(asyncio.Task[T]):
    """Clean-up that nobody stops: not even who cancels every task of the loop, as its end does."""

    def cancel(self, msg: object = None) -> bool:  # as a task has it
        """Does nothing; who waits for this hears of its own cancellation afterwards."""
        return False


async def finished(work: Coroutine[None, None, T]) -> T:
    """Runs clean-up work to its end; a cancellation, however often it comes, waits for that."""
    return await _outlasted(finishing(work))


async def all_finished(works: Iterable[Coroutine[None, None, None]]) -> None:
    """Runs clean-up works at once, each to its end; the first error is raised when all have ended."""
    tasks = [finishing(work) for work in works]
    if tasks:
        await finished(_ended(tasks))
    for task in tasks:
        task.result()


async def each_in_turn(works: Iterable[Callable[[], Awaitable[object]]]) -> None:
    """Does one work after the other, whatever becomes of those before; then raises the first error.

    A cancellation ends the work that it meets, and no other.
    """
    first: BaseException | None = None
    for work in works:
        try:
            await work()
        except BaseException as error:  # noqa: BLE001  # a border: raised below, the others go on
            first = first or error
    try:
        if first is not None:
            raise first
    finally:
        first = None  # an error that is held by its own traceback is freed late


def finishing(work: Coroutine[None, None, T]) -> asyncio.Task[T]:
    """Begins clean-up work that nobody stops.

    An ordinary task that is cancelled before it had its first turn has done nothing at all.
    """
    return _Unstoppable(work, loop=asyncio.get_running_loop())


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Runs a blocking function in a thread of the loop's; a cancellation waits for its end.

    Raises:
        ResourceLimitError: if no thread can be started; then the function is not called.
    """
    return await _outlasted(start_thread(partial(function, *args, **kwargs)))


async def in_stoppable_thread(function: Callable[[threading.Event], T]) -> T:
    """Runs a blocking function in a thread of the loop's; a cancellation sets its event, and waits.

    Raises:
        ResourceLimitError: if no thread can be started; then the function is not called.
    """
    stopped = threading.Event()
    return await _outlasted(start_thread(partial(function, stopped)), stopped)


def start_thread(function: Callable[[], T]) -> asyncio.Future[T]:
    """Has a thread of the loop's call a function; no task, which the end of a loop would cancel.

    Raises:
        ResourceLimitError: if no thread can be started; then the function is not called.
    """
    work = Work(partial(contextvars.copy_context().run, function))
    with work.withdrawn_without_thread("start"):
        return asyncio.get_running_loop().run_in_executor(None, work)


class Work(Generic[T]):
    """A call for a thread of a pool.

    A pool that can't start a thread raises, and keeps what it was given: whichever thread comes next
    would do it, long after the caller was told that it failed.
    """

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._claimed = threading.Lock()  # by the thread that does it, or by its withdrawal

    def __call__(self) -> T:
        """Does the work, unless it was withdrawn."""
        if not self._claimed.acquire(blocking=False):
            raise RuntimeError("this work was withdrawn")
        return self._call()

    @contextmanager
    def withdrawn_without_thread(self, op: OpName) -> Iterator[None]:
        """Withdraws the work if the pool that it is given to here can't start a thread."""
        try:
            yield
        except RuntimeError as error:
            self._claimed.acquire(blocking=False)  # a thread that has it already is let finish
            raise ResourceLimitError(
                "no thread can be started for this call; end some of this user's processes, or "
                "raise its limit on processes (ulimit -u) or on memory",
                limit="processes",
                value=errno.EAGAIN,
                unit="errno",
                op=op,
                cause=error,
                retryable=True,
            ) from error


async def _ended(tasks: Iterable[asyncio.Task[None]]) -> None:
    await asyncio.wait([*tasks])


async def _outlasted(work: asyncio.Future[T], stopped: threading.Event | None = None) -> T:
    """Waits until something is done, then passes on the cancellation that came meanwhile."""
    cancelled: asyncio.CancelledError | None = None
    while not work.done():
        try:
            await asyncio.wait([work])  # which neither cancels the work nor raises its error
        except asyncio.CancelledError as error:
            cancelled = error
            if stopped is not None:
                stopped.set()
    if cancelled is None:
        return work.result()
    if not work.cancelled():
        work.exception()  # looked at, so that it is not reported as lost
    raise cancelled
