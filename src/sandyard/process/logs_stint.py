"""Owns a stint: a thread brings a busy pipe's bytes into a log by itself, for a moment.

The bytes of a process that writes without a pause would otherwise pass through the loop, wait there,
and be written by a thread, and the two would take turns at the interpreter.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import Protocol

from sandyard.limits import (
    LOG_BULK_BYTES,
    LOG_STINT_NAP_S,
    LOG_STINT_S,
    LOG_STINT_SILENCE,
    PIPE_READ_BYTES,
)
from sandyard.process.logs_layout import Space, header

__all__ = ["Source", "Stint", "write_whole"]


class Source(Protocol):
    """A pipe that can be read by somebody else for a while."""

    def lend(self) -> int | None:
        """Stops reading; a descriptor to read from, which is the caller's; None if it is closed.

        Raises:
            OSError: there is no descriptor left.
        """
        ...

    def regain(self, *, ended: bool) -> None:
        """May read again; ``ended`` says that the end of the stream was read."""
        ...


@dataclass(slots=True)
class Stint:
    """One stint.

    Attributes:
        source: the pipe that was lent for it.
        stream: whose bytes they are.
        spaces: where in the log they go, one after the other.
        fd: what they are read from; it does not block, and belongs to the stint.
        buffer: what they pass through.
        filled: how many are in the first spaces; where the stint fails, they are lost.
        ended: whether the end of the stream was read.
        flowing: whether more is likely to be there.
    """

    source: Source
    stream: int
    spaces: tuple[Space, ...]
    fd: int
    buffer: bytearray
    filled: list[int] = field(default_factory=list)
    ended: bool = False
    flowing: bool = False

    @property
    def got(self) -> int:
        """How many bytes were read."""
        return sum(self.filled)

    def work(self, file: int) -> None:
        """Reads and writes until there is silence, no space, or enough time has passed (blocking).

        Raises:
            OSError: something could not be written.
        """
        until = time.monotonic() + LOG_STINT_S
        late = False
        with memoryview(self.buffer) as view:
            for space in self.spaces:
                self.filled.append(0)
                late = self._fill(space, view, file, until)
                if self.filled[-1]:
                    head = memoryview(header(self.stream, self.filled[-1]))
                    write_whole(file, [head], space.head_at)
                if self.filled[-1] < space.size:
                    self.flowing = late and self.got >= LOG_BULK_BYTES
                    return
        self.flowing = True

    def _fill(self, space: Space, view: memoryview, file: int, until: float) -> bool:
        """Fills a space as far as it can; True if it is not full because the time is over."""
        silence = 0
        while self.filled[-1] < space.size and silence < LOG_STINT_SILENCE:
            before = self.filled[-1]
            try:
                size = os.readv(self.fd, [view[: space.size - before]])
            except BlockingIOError:
                size, silence = 0, silence + 1
            else:
                if not size:
                    self.ended = True
                    return False
                self.filled[-1] += size  # lost, if they can't be written
                silence = 0
                write_whole(file, [view[:size]], space.at + before)
            if size < PIPE_READ_BYTES:  # a writer that is woken for each few pages is slow
                if (
                    time.monotonic() > until
                ):  # who reads the log sees nothing of this before its end
                    return True
                time.sleep(LOG_STINT_NAP_S)
        return False

    def close(self) -> None:
        """Closes what it read from."""
        os.close(self.fd)


def write_whole(fd: int, parts: list[memoryview], at: int) -> None:
    """Writes all of some parts, one after the other (blocking).

    Raises:
        OSError: that can't be done.
    """
    while parts:
        wrote = os.pwritev(fd, parts, at)  # less than all of it: the next says why
        at += wrote
        while parts and wrote >= len(parts[0]):
            wrote -= len(parts.pop(0))
        if wrote:
            parts[0] = parts[0][wrote:]
