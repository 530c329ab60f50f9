"""Interrupts a coroutine at a suspension that is chosen by number, whatever it waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from enum import StrEnum
from types import TracebackType
from typing import TypeVar

__all__ = ["Moment", "Steps", "interrupt", "leave_amid"]

T = TypeVar("T")


class Moment(StrEnum):
    """How the cancellation meets the suspension."""

    PENDING = "pending"
    """While what is waited for has not come."""

    LATE = "late"
    """When it has come, but before the coroutine has heard of it: its answer may be lost."""

    TWICE = "twice"
    """While it is pending, and again at the next suspension, in the middle of the clean-up."""


class Steps(Coroutine[object, object, T]):
    """A coroutine that tells before each suspension what it is going to wait for.

    Args:
        inner: the coroutine; it is driven as it would be without this.
        on_step: called, inside the task, with what the coroutine gives the loop: a future, or None
            where it only lets others run.
    """

    def __init__(
        self, inner: Coroutine[object, object, T], on_step: Callable[[object], None]
    ) -> None:
        self._inner = inner
        self._on_step = on_step

    def send(self, value: object, /) -> object:
        """Runs on to the next suspension."""
        waited = self._inner.send(value)
        self._on_step(waited)
        return waited

    def throw(  # type: ignore[override]  # the form with three arguments is deprecated
        self,
        kind: BaseException,
        value: BaseException | None = None,
        trace: TracebackType | None = None,
        /,
    ) -> object:
        """Raises inside, and runs on to the next suspension."""
        waited = self._inner.throw(kind)
        self._on_step(waited)
        return waited

    def close(self) -> None:
        """Ends the coroutine."""
        self._inner.close()

    def __await__(self) -> Generator[object, object, T]:
        """Waits for the coroutine as itself; a task never asks for this."""
        return self._inner.__await__()


async def interrupt(work: Coroutine[object, object, object], moment: Moment, number: int) -> bool:
    """Runs ``work`` as a task and cancels it at its suspension ``number``, counted from 1.

    Returns:
        Whether it was cancelled; otherwise the work has ended untouched.

    Raises:
        AssertionError: if it was cancelled and did not end so.
        BaseException: what the work raised, if it was not cancelled.
    """
    seen, reached = 0, False

    def cancel() -> None:
        nonlocal reached
        reached = task.cancel() or reached

    def count(waited: object) -> None:
        nonlocal seen
        seen += 1
        if seen == number and moment is Moment.LATE and isinstance(waited, asyncio.Future):
            # Called before the task's own callback, which is added when this returns.
            waited.add_done_callback(lambda _: cancel())
        elif seen == number or (seen == number + 1 and moment is Moment.TWICE):
            cancel()  # takes effect as soon as the loop has got what is waited for

    task = asyncio.get_running_loop().create_task(Steps(work, count))
    await asyncio.wait([task])
    if not reached:
        task.result()
        return False
    assert task.cancelled(), f"cancelled, it ended otherwise: {task!r}"
    return True


async def leave_amid(work: Coroutine[object, object, object], number: int) -> bool:
    """Sets ``work`` off and returns when it has come to its suspension ``number``.

    What ``asyncio.run`` does next is to cancel it, together with all that it has set off.

    Returns:
        False if there was no such suspension.
    """
    seen, there = 0, asyncio.Event()

    def count(_: object) -> None:
        nonlocal seen
        seen += 1
        if seen == number:
            there.set()

    task = asyncio.get_running_loop().create_task(Steps(work, count))
    task.add_done_callback(lambda _: there.set())
    await there.wait()  # and by now what it has set off has begun as well
    if seen < number:
        task.result()
    return seen >= number
