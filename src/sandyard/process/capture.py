"""Owns what is kept of a stream: its head, its tail, and the honest count of what lay between."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Protocol

from sandyard.limits import OUTPUT_HEAD_SHARE, PIPE_READ_BYTES

__all__ = ["Capture", "Captured", "Dropping", "Sink"]


class Sink(Protocol):
    """Where a command's output goes."""

    def read(self, fd: int, size: int) -> int:
        """Reads once from ``fd``, at most ``size`` bytes; returns how many came, 0 at the end.

        Raises:
            BlockingIOError: if nothing is there.
        """
        ...


class Dropping:
    """Takes no memory, and keeps nothing."""

    __slots__ = ()

    _room = bytearray(PIPE_READ_BYTES)  # there before it is needed

    def read(self, fd: int, size: int) -> int:  # as every sink has it
        """Reads once, and forgets what came."""
        return os.readv(fd, [self._room])


@dataclass(frozen=True, slots=True)
class Captured:
    """What was kept of a stream.

    Attributes:
        data: head and tail, joined.
        dropped: bytes that are missing between them.
        total: bytes that the stream had.
    """

    data: bytes
    dropped: int
    total: int


class Capture:
    """Keeps at most ``limit`` bytes of a stream: a quarter from its beginning, the rest from its end.

    ``head_share`` is that quarter; 0.0 keeps the end alone.

    Memory stays within the limit and one chunk, however much comes.
    """

    __slots__ = ("_head", "_head_room", "_oldest", "_tail", "_tail_room", "total")

    def __init__(self, limit: int, head_share: float = OUTPUT_HEAD_SHARE) -> None:
        self._head_room = int(limit * head_share)  # what may still be added to the head
        self._tail_room = limit - self._head_room
        self._head = bytearray()
        self._tail = bytearray()  # a ring, once it is as large as it may be
        self._oldest = 0  # where the ring begins
        self.total = 0

    def feed(self, chunk: bytes) -> None:
        """Takes the next bytes of the stream."""
        self.total += len(chunk)
        if self._head_room:
            taken = chunk[: self._head_room]
            self._head += taken
            self._head_room -= len(taken)
            chunk = chunk[len(taken) :]
        room = self._tail_room - len(self._tail)
        if room:
            self._tail += chunk[:room]
            chunk = chunk[room:]
        if chunk:
            self._replace(chunk[-self._tail_room :] if self._tail_room else b"")

    def read(self, fd: int, size: int) -> int:
        """Reads once from ``fd``, at most ``size`` bytes; returns how many came, 0 at the end.

        Raises:
            BlockingIOError: if nothing is there.
        """
        full = len(self._tail) == self._tail_room >= size
        # Where a pipe gives out each write by itself (O_DIRECT), what has no room is thrown away.
        if not full or self._tail_room - self._oldest < PIPE_READ_BYTES:
            chunk = os.read(fd, size)
            if chunk:
                self.feed(chunk)
            return len(chunk)
        # Into its place at once: bulk output is neither allocated nor copied a second time.
        with memoryview(self._tail) as ring, ring[self._oldest : self._oldest + size] as oldest:
            got = os.readv(fd, [oldest])
        self._oldest = (self._oldest + got) % self._tail_room
        self.total += got
        return got

    def result(self) -> Captured:
        """What was kept so far."""
        if not self.total:
            return _NOTHING
        with memoryview(self._tail) as ring:
            data = b"".join((self._head, ring[self._oldest :], ring[: self._oldest]))
        return Captured(data, self.total - len(data), self.total)

    def _replace(self, chunk: bytes) -> None:
        """Puts ``chunk``, no longer than the ring, in the place of the ring's oldest bytes."""
        first = min(len(chunk), len(self._tail) - self._oldest)
        self._tail[self._oldest : self._oldest + first] = chunk[:first]
        self._tail[: len(chunk) - first] = chunk[first:]
        self._oldest = (self._oldest + len(chunk)) % len(self._tail) if self._tail else 0


_NOTHING = Captured(b"", 0, 0)
