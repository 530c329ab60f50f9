"""Owns a stint: a thread brings a busy pipe's bytes into a log by itself, for a moment.

The bytes of a process that writes without a pause would otherwise pass through the loop, wait there,
and be written by a thread, and the two would take turns at the interpreter.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
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
from sandyard.process.relay import Relay

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
        spaces: where in the log they go, one after the other; its owner may add some while it works.
        fd: what they are read from; it does not block, and belongs to the stint.
        relay: what they pass through; it is the stint's likewise.
        tell: called by its thread whenever a space is full.
        filled: how many are in the first spaces; where the stint fails, those of the last are lost.
        full: how many spaces are written to their end.
        counted: how many of those its owner has taken note of.
        ended: whether the end of the stream was read.
        flowing: whether more is likely to be there.
    """

    source: Source
    stream: int
    spaces: list[Space]
    fd: int
    relay: Relay
    tell: Callable[[Stint], None]
    filled: list[int] = field(default_factory=list)
    full: int = 0
    counted: int = 0
    ended: bool = False
    flowing: bool = False

    @property
    def uncounted(self) -> int:
        """How many bytes were read and are not taken note of."""
        return sum(self.filled[self.counted :])

    def work(self, file: int) -> None:
        """Reads and writes until there is silence, no space, or enough time has passed (blocking).

        Raises:
            OSError: something could not be written.
        """
        until = time.monotonic() + LOG_STINT_S
        late = False
        for space in self.spaces:  # also those that come meanwhile
            self.filled.append(0)
            late = self._fill(space, file, until)
            if self.filled[-1]:
                head = memoryview(header(self.stream, self.filled[-1]))
                write_whole(file, [head], space.head_at)
            if self.filled[-1] < space.size:
                self.flowing = late and sum(self.filled) >= LOG_BULK_BYTES
                return
            self.full += 1
            self.tell(self)
        self.flowing = True

    def _fill(self, space: Space, file: int, until: float) -> bool:
        """Fills a space as far as it can; True if it is not full because the time is over."""
        silence = 0
        while self.filled[-1] < space.size and silence < LOG_STINT_SILENCE:
            before = self.filled[-1]
            try:
                size = self.relay.fill(self.fd, min(LOG_BULK_BYTES, space.size - before))
            except BlockingIOError:
                size, silence = 0, silence + 1
            else:
                if not size:
                    self.ended = True
                    return False
                self.filled[-1] += size  # lost, if they can't be written
                silence = 0
                self.relay.write(file, size, space.at + before)
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
        self.relay.close()


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
