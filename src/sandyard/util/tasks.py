"""Owns the tasks of a bounded gathering."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TypeVar

from sandyard.errors import ArgumentError, shown

__all__ = ["gather_in_order"]

T = TypeVar("T")
_Numbered = tuple[int, Callable[[], Awaitable[T]]]


async def gather_in_order(
    task_factories: Sequence[Callable[[], Awaitable[T]]], *, max_concurrency: int | None = None
) -> list[T]:
    """Await what some functions give, a bounded number at a time.

    Args:
        task_factories: each is called when its turn has come, and what it gives is awaited.
        max_concurrency: how many at a time; None for all.

    Returns:
        The results, in the order of the functions.

    Raises:
        ArgumentError: ``max_concurrency`` is less than 1.

    The first error ends the others, waits for their end, and is raised. So does a cancellation.
    """
    if max_concurrency is not None and max_concurrency < 1:
        raise ArgumentError(
            f"max_concurrency is at least 1, or None for all at once, not {shown(max_concurrency)}",
            op="util",
            argument="max_concurrency",
            value=max_concurrency,
        )
    results: dict[int, T] = {}
    waiting = iter(enumerate(task_factories))
    count = min(len(task_factories), max_concurrency or len(task_factories))
    workers = [asyncio.create_task(_work(waiting, results)) for _ in range(count)]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    return [results[index] for index in range(len(task_factories))]


async def _work(waiting: Iterator[_Numbered[T]], results: dict[int, T]) -> None:
    """Take what is next until nothing is left; all workers take from one iterator."""
    for index, factory in waiting:
        results[index] = await factory()
