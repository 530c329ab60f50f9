"""Owns the buffers that bulk output is read into on its way to a log."""

from __future__ import annotations

from sandyard.limits import LOG_ROOM_BYTES, LOG_ROOM_MIN_BYTES, LOG_ROOMS_SPARE

__all__ = ["LogRoom"]

_spare: list[bytearray] = []
"""Buffers that are in nobody's use, for all logs: a fresh one costs more than what it is filled with."""


class LogRoom:
    """The buffers of one log, filled one after the other.

    What was filled stays as it is until ``recycle`` is told that it is written.
    """

    __slots__ = ("_buffer", "_end", "_full", "_start")

    def __init__(self) -> None:
        self._buffer: bytearray | None = None
        self._start = 0  # of what is joined
        self._end = 0  # of what is filled
        self._full: list[bytearray] = []

    def free(self, size: int) -> memoryview:
        """Where at most ``size`` bytes may be read to.

        Raises:
            MemoryError: there is none.
        """
        if self._buffer is None or len(self._buffer) - self._end < LOG_ROOM_MIN_BYTES:
            fresh = _spare.pop() if _spare else bytearray(LOG_ROOM_BYTES)
            if self._buffer is not None:
                self._full.append(self._buffer)
            self._buffer, self._start, self._end = fresh, 0, 0
        return memoryview(self._buffer)[self._end : self._end + size]

    def fill(self, size: int, *, joined: bool) -> memoryview:
        """Takes note that so many bytes were read there.

        Args:
            size: how many.
            joined: whether they continue those before, if these lie in the same buffer.

        Returns:
            The bytes, with those that they continue.
        """
        if not joined:
            self._start = self._end
        self._end += size
        return memoryview(self._buffer or b"")[self._start : self._end]

    @property
    def continued(self) -> bool:
        """Whether what is filled next can continue what was filled last."""
        return self._end > self._start

    def cut(self) -> list[bytearray]:
        """Takes note that what was filled is about to be written; returns what is full by now."""
        self._start = self._end
        full, self._full = self._full, []
        return full

    def recycle(self, full: list[bytearray], *, idle: bool) -> None:
        """Gives back what is written: buffers that are full, and the last one where all is.

        Args:
            full: what ``cut`` returned.
            idle: whether nothing is left to be written.
        """
        if idle and self._buffer is not None:
            full = [*full, self._buffer]
            self._buffer, self._start, self._end = None, 0, 0
        _spare.extend(full[: max(0, LOG_ROOMS_SPARE - len(_spare))])
