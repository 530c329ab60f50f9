"""Owns the threads that read output which comes faster than a loop should have to be woken for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from sandyard.limits import (
    PIPE_BULK_BYTES,
    PIPE_FLOOD_NAP_S,
    PIPE_FLOOD_SILENCE,
    PIPE_FLOODS,
    PIPE_READ_BYTES,
)
from sandyard.process.reading_thread import Places, ReadingThread

if TYPE_CHECKING:
    from sandyard.process.capture import Sink

__all__ = ["PIPE_FLOOD_PLACES", "PipeFlood"]

PIPE_FLOOD_PLACES = Places(PIPE_FLOODS)


class PipeFlood(ReadingThread):
    """A thread that reads a pipe for as long as its command writes without a pause.

    Between two reads it lets the pipe fill for a moment: a writer that is woken, or kept out of the pipe, for
    each few pages is slow, and so is everybody else here. It reads under a lock, and never waits while it has
    that: once it is stopped, it touches neither the pipe nor the sink again.

    Args:
        fd: the pipe, which does not block; it may be closed once this is stopped.
        sink: what reads from it.
        tell: called on the loop, with this, when it has come to its end by itself.

    Attributes:
        ended: whether the end of the stream was read.
        failed: why output was lost; None while all is well.
    """

    __slots__ = ("_fd", "_over", "_sink", "_tell", "ended", "failed")

    def __init__(
        self,
        fd: int,
        sink: Sink,
        tell: Callable[[PipeFlood], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(PIPE_FLOOD_PLACES, loop)
        self._fd, self._sink, self._tell = fd, sink, tell
        self._over = False
        self.ended = False
        self.failed: MemoryError | None = None

    @classmethod
    def begin(
        cls,
        fd: int,
        sink: Sink,
        tell: Callable[[PipeFlood], None],
        loop: asyncio.AbstractEventLoop,
    ) -> PipeFlood | None:
        """Starts one; None where the loop has to read, since there is no room for one more thread."""
        if not PIPE_FLOOD_PLACES.take():
            return None
        flood = cls(fd, sink, tell, loop)
        return flood if flood.start() else None

    def stop(self) -> None:
        """Lets it read nothing more."""
        with self._lock:
            self._over = True

    def _run(self) -> None:
        silence = 0
        while silence < PIPE_FLOOD_SILENCE and not self._loop.is_closed():
            got = self._read()
            if got is None:
                break
            silence = 0 if got else silence + 1
            if got < PIPE_READ_BYTES:
                time.sleep(PIPE_FLOOD_NAP_S)

    def _finish(self) -> None:
        self._tell(self)

    def _read(self) -> int | None:
        """Reads what is there; how many bytes, and None where nothing more is to be read."""
        with self._lock:
            if self._over:
                return None
            try:
                got = self._sink.read(self._fd, PIPE_BULK_BYTES)
            except BlockingIOError:
                return 0
            except MemoryError as error:
                self.failed = error
            except OSError:  # the loop sees for itself
                pass
            else:
                self.ended = not got
                return got or None
            return None
