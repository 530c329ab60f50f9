"""Owns what is kept of a stream: its head, its tail, and the honest count of what lay between."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from sandyard.limits import OUTPUT_HEAD_SHARE

__all__ = ["Capture", "Captured"]


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

    Memory stays within the limit and two chunks, however much is fed.
    """

    __slots__ = ("_head", "_head_room", "_tail", "_tail_room", "_tail_size", "total")

    def __init__(self, limit: int) -> None:
        self._head_room = int(limit * OUTPUT_HEAD_SHARE)
        self._tail_room = limit - self._head_room
        self._head: list[bytes] = []
        self._tail: deque[bytes] = deque()
        self._tail_size = 0
        self.total = 0

    def feed(self, chunk: bytes) -> None:
        """Takes the next bytes of the stream."""
        self.total += len(chunk)
        if self._head_room:
            self._head.append(chunk[: self._head_room])
            chunk = chunk[self._head_room :]
            self._head_room -= len(self._head[-1])
        if not chunk:
            return
        self._tail.append(chunk)
        self._tail_size += len(chunk)
        # A whole chunk goes only when what stays is still a whole tail.
        while self._tail_size - len(self._tail[0]) >= self._tail_room:
            self._tail_size -= len(self._tail.popleft())
            if not self._tail:
                break

    def result(self) -> Captured:
        """What was kept so far."""
        if not self.total:
            return _NOTHING
        excess = max(0, self._tail_size - self._tail_room)
        tail = b"".join(self._tail)[excess:]
        data = b"".join([*self._head, tail])
        return Captured(data, self.total - len(data), self.total)


_NOTHING = Captured(b"", 0, 0)
