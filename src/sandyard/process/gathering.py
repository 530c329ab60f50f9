"""Owns what a process has written since it was last asked: bounded, counted, whole characters."""

from __future__ import annotations

from sandyard.limits import OUTPUT_HEAD_SHARE, SLOT_OUTPUT_BYTES
from sandyard.process.capture import Capture
from sandyard.process.latch import Latch
from sandyard.truncation import continues

__all__ = ["Gathering", "whole_characters"]

_FIRST_BYTES = ((0xE0, 0xC0, 2), (0xF0, 0xE0, 3), (0xF8, 0xF0, 4))
"""Mask and bits of a byte that begins a character of UTF-8, and the bytes that such a one has."""

_LONGEST = 4
"""Bytes of the longest character."""


class Gathering:
    """Reads whatever a process writes, never makes it wait, and hands it out at each asking.

    Attributes:
        ended: set when nothing more comes.
        waiting: always 0: nobody has to wait for this reader.
    """

    __slots__ = ("_capture", "_carry", "ended", "waiting")

    def __init__(self) -> None:
        self._capture = Capture(SLOT_OUTPUT_BYTES)
        self._carry = b""
        self.ended: Latch[None] = Latch()
        self.waiting = 0

    def take(self, chunk: bytes) -> None:
        """Holds what came."""
        self._capture.feed(chunk)

    def wake(self) -> None:
        """Takes note of the end."""
        self.ended.set(None)

    def hand_out(self) -> bytes:
        """What came since the last time, with a notice in the place of what was dropped.

        The beginning of a character whose rest has not come is kept for the next time, unless
        nothing more comes.
        """
        kept = self._capture.result()
        if kept.total:
            self._capture = Capture(SLOT_OUTPUT_BYTES)
        data = kept.data
        if kept.dropped:
            head = int(SLOT_OUTPUT_BYTES * OUTPUT_HEAD_SHARE)
            notice = f"\n[sandyard: {kept.dropped} bytes dropped]\n".encode()
            data = data[:head] + notice + data[head:]
        data = self._carry + data
        whole = len(data) if self.ended.is_set else whole_characters(data)
        self._carry = data[whole:]
        return data[:whole]


def whole_characters(data: bytes) -> int:
    """How many bytes of ``data`` do not belong to a character of UTF-8 that is cut off at its end."""
    for back in range(1, min(_LONGEST, len(data)) + 1):
        if not continues(data[-back]):
            return len(data) - back if _length(data[-back]) > back else len(data)
    return len(data)


def _length(first: int) -> int:
    """The bytes of a character that begins so; 1 where none does."""
    return next((size for mask, bits, size in _FIRST_BYTES if first & mask == bits), 1)
