"""Owns the line on a terminal that tells how far long work has come."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable
from contextlib import suppress
from types import TracebackType
from typing import Final, Self, TypeVar

__all__ = ["Progress", "readable_size"]

T = TypeVar("T")

_STDERR: Final = 2
_PAUSE_S: Final = 0.2
"""Seconds between two looks of the line: fast enough to follow, too slow to cost anything."""

_QUICK_S: Final = 1.0
"""Work that takes less has no line."""

_CLEAR: Final = b"\r\x1b[K"
_STEP: Final = 1024
_UNITS: Final = ("B", "KiB", "MiB", "GiB")


class Progress:
    """Counts the bytes that pass, and shows them on standard error, if that is a terminal.

    It is a context manager; leaving it takes the line away.

    Args:
        what: what is under way, in a few words.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._bytes = 0
        self._begun = time.monotonic()
        self._next = self._begun + _QUICK_S if os.isatty(_STDERR) else float("inf")
        self._shown = False

    async def watch(self, source: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
        """Pass on what a source gives."""
        async for data in source:
            yield data
            self.count(data)

    async def during(self, work: Awaitable[T]) -> T:
        """Wait for work of which nobody tells how far it is; how long it takes is shown."""
        task = asyncio.ensure_future(work)
        try:
            while not (await asyncio.wait([task], timeout=_PAUSE_S))[0]:
                now = time.monotonic()
                if now >= self._next:
                    self._put(_CLEAR + f"{self._what}: {now - self._begun:.0f} s".encode())
                    self._shown = True
            return task.result()
        finally:
            task.cancel()  # for whoever is cancelled; what has ended hears nothing
            await asyncio.wait([task])

    def count(self, data: bytes) -> bytes:
        """Pass on what was read elsewhere, in a thread as well."""
        self._bytes += len(data)
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _PAUSE_S
            self._show(now)
        return data

    def _show(self, now: float) -> None:
        rate = readable_size(self._bytes / (now - self._begun))
        self._put(_CLEAR + f"{self._what}: {readable_size(self._bytes)}, {rate}/s".encode())
        self._shown = True

    def _put(self, line: bytes) -> None:
        with suppress(OSError):  # a terminal that has gone
            os.write(_STDERR, line)

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take the line away."""
        if self._shown:
            self._put(_CLEAR)


def readable_size(size: float) -> str:
    """A number of bytes with the unit that suits it."""
    for unit in _UNITS[:-1]:
        if size < _STEP:
            return f"{size:.0f} {unit}" if unit == _UNITS[0] else f"{size:.1f} {unit}"
        size /= _STEP
    return f"{size:.1f} {_UNITS[-1]}"
