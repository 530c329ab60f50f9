"""Owns who reads a terminal: each gets all of its output; the slowest of them makes the program wait."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

from sandyard.limits import TERMINAL_STREAM_BYTES
from sandyard.process.capture import Captured
from sandyard.process.latch import wake

__all__ = ["Attachment", "Audience", "Reader"]


class Reader(Protocol):
    """Who reads a terminal.

    Attributes:
        waiting: bytes that were taken and are not read yet.
    """

    waiting: int

    def take(self, chunk: bytes) -> None:
        """Takes what came."""

    def wake(self) -> None:
        """Hears that nothing more comes."""


class Audience:
    """The readers of one terminal.

    Args:
        pause: makes the program wait; ``resume`` lets it go on.
    """

    __slots__ = ("_pause", "_paused", "_readers", "_resume")

    def __init__(self, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        self._pause = pause
        self._resume = resume
        self._paused = False
        self._readers: tuple[Reader, ...] = ()

    @property
    def count(self) -> int:
        """How many read it now."""
        return len(self._readers)

    def add(self, reader: Reader) -> None:
        """Lets one more read."""
        self._readers = (*self._readers, reader)
        if not self._paused:  # nobody may have read until now
            self._resume()
        self.weigh()

    def remove(self, reader: Reader) -> None:
        """Nobody waits for this one any more."""
        self._readers = tuple(other for other in self._readers if other is not reader)
        self.weigh()

    def take(self, chunk: bytes) -> None:
        """Gives everybody what came."""
        for reader in self._readers:
            reader.take(chunk)
        self.weigh()

    def end(self) -> None:
        """Tells everybody that nothing more comes."""
        for reader in self._readers:
            reader.wake()

    def weigh(self) -> None:
        """Makes the program wait if somebody has more to read than is held for it, or goes on."""
        waiting = max((reader.waiting for reader in self._readers), default=0)
        if not self._paused and waiting >= TERMINAL_STREAM_BYTES:
            self._paused = True
            self._pause()
        elif self._paused and waiting < TERMINAL_STREAM_BYTES // 2:
            self._paused = False
            self._resume()


class Attachment:
    """A reader of a terminal, to be iterated for what the terminal shows.

    Made by ``Terminal.attach``; enter it as an async context manager. Leaving the block detaches and
    leaves the program running. The iteration ends when the command has exited and all was read, and
    when nothing more can be read: then ``Terminal.wait`` raises why. A chunk may end within a line, a
    character or an escape sequence.

    Once some 256 KiB wait to be read, the terminal's program waits in its next write, until they are:
    whoever attaches has to read, or to leave. One task reads an attachment; others attach for themselves.

    Attributes:
        dropped: bytes of output that were dropped before the first that this reader gets.
    """

    __slots__ = ("_audience", "_chunks", "_ended", "_news", "_replay", "dropped", "waiting")

    def __init__(
        self,
        audience: Audience,
        replay: Callable[[], Captured],
        ended: Callable[[], bool],
    ) -> None:
        """Prepare a reader; use ``Terminal.attach`` instead."""
        self._audience = audience
        self._replay = replay
        self._ended = ended
        self._chunks: deque[bytes] = deque()
        self._news: asyncio.Future[None] | None = None
        self.dropped = 0
        self.waiting = 0

    async def __aenter__(self) -> Self:
        """Attaches: what comes from now on is held for this reader."""
        earlier = self._replay()
        self.dropped = earlier.dropped
        if earlier.data:
            self.take(earlier.data)
        self._audience.add(self)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Detaches."""
        self._audience.remove(self)
        self._chunks.clear()
        self.waiting = 0

    def __aiter__(self) -> Self:
        """Iterates over the output, from here to its end."""
        return self

    async def __anext__(self) -> bytes:
        """Waits for the next bytes, never empty."""
        while not self._chunks:
            if self._ended():
                raise StopAsyncIteration
            self._news = asyncio.get_running_loop().create_future()
            await self._news
        chunk = self._chunks.popleft()
        self.waiting -= len(chunk)
        self._audience.weigh()
        return chunk

    def take(self, chunk: bytes) -> None:
        """Holds bytes for the reader."""
        self._chunks.append(chunk)
        self.waiting += len(chunk)
        self.wake()

    def wake(self) -> None:
        """Lets the reader look again."""
        if self._news is not None:
            wake(self._news)
