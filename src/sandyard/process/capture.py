"""Owns what is kept of a stream: its head, its tail, and the honest count of what lay between."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from sandyard.limits import CAPTURE_PIECE_BYTES, OUTPUT_HEAD_SHARE

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
        self._head = bytearray()
        self._tail: deque[bytes | bytearray] = deque()
        self._tail_size = 0
        self.total = 0

    def feed(self, chunk: bytes) -> None:
        """Takes the next bytes of the stream."""
        self.total += len(chunk)
        if self._head_room:
            taken = chunk[: self._head_room]
            self._head += taken
            self._head_room -= len(taken)
            chunk = chunk[len(taken) :]
        if not chunk:
            return
        self._append(chunk)
        self._tail_size += len(chunk)
        # A whole chunk goes only when what stays is still a whole tail.
        while self._tail_size - len(self._tail[0]) >= self._tail_room:
            self._tail_size -= len(self._tail.popleft())
            if not self._tail:
                break

    def _append(self, chunk: bytes) -> None:
        # A program that writes without a buffer is read a few bytes at a time, and an object of its
        # own for each would be many times as large as they are.
        if len(chunk) >= CAPTURE_PIECE_BYTES:
            self._tail.append(chunk)
            return
        last = self._tail[-1] if self._tail else None
        if isinstance(last, bytearray) and len(last) < CAPTURE_PIECE_BYTES:
            last += chunk
        else:
            self._tail.append(bytearray(chunk))

    def result(self) -> Captured:
        """What was kept so far."""
        if not self.total:
            return _NOTHING
        excess = max(0, self._tail_size - self._tail_room)
        tail = b"".join(self._tail)[excess:]
        data = bytes(self._head) + tail
        return Captured(data, self.total - len(data), self.total)


_NOTHING = Captured(b"", 0, 0)
