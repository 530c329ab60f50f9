"""Owns one word to a sandbox's first process: that all are to stop, or to go on, and its answer."""

from __future__ import annotations

import os

from sandyard.process.events import Event, ProtocolError, Stilled
from sandyard.process.latch import Latch
from sandyard.process.wire import encode_still

__all__ = ["StillOrder"]


class StillOrder:
    """One word of which the answer may come after nobody waits for it any more.

    Args:
        number: what the order is called on the channel.
        on: whether all are to stop.
    """

    __slots__ = ("_answer", "body", "number")

    def __init__(self, number: int, *, on: bool) -> None:
        self.number = number
        self.body = encode_still(on=on)
        self._answer: Latch[int] = Latch()

    async def answered(self) -> None:
        """Wait until all have been told, or the sandbox has ended.

        Raises:
            OSError: they can't be.
        """
        await self._answer.wait()
        error = self._answer.get()
        if error:
            raise OSError(error, os.strerror(error))

    def arrive(self, event: Event, passed: list[int] | None) -> None:
        """Takes the answer.

        Raises:
            ProtocolError: something else has come; then ``passed`` is as it was.
        """
        if not isinstance(event, Stilled) or passed != [] or event.error < 0:
            raise ProtocolError("who is to be still is told otherwise")
        self._answer.set(event.error)

    def end(self, _outcome: None) -> None:
        """Takes note that nothing comes any more."""
        self._answer.set(0)
