"""Owns work that is finished even when whoever waits for it is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import ParamSpec, TypeVar

__all__ = ["finished", "in_thread"]

P = ParamSpec("P")
T = TypeVar("T")


async def finished(work: Coroutine[None, None, T]) -> T:
    """Runs clean-up work to its end; a cancellation, however often it comes, waits for that."""
    return await _outlasted(asyncio.ensure_future(work))


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Runs a blocking function in a thread of the loop's; a cancellation waits for its end."""
    return await _outlasted(asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs)))


async def _outlasted(task: asyncio.Task[T]) -> T:
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])  # which neither cancels the task nor raises its error
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is None:
        return task.result()
    if not task.cancelled():
        task.exception()  # looked at, so that it is not reported as lost
    raise cancelled
