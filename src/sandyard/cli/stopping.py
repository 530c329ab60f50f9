"""Owns the signals that ask us to stop: the first goes on to the command, the second ends it."""

from __future__ import annotations

import asyncio
import signal
from types import TracebackType
from typing import Final, Protocol, Self

__all__ = ["Signalled", "Stopping"]

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class Signalled(Protocol):
    """What a signal is sent on to."""

    async def signal(self, number: int = ..., *, tree: bool = ...) -> None:
        """Send it a signal, and with ``tree`` to all that descends from it."""


class Stopping:
    """Listens to signals for the length of a block, in the task that enters it.

    A signal that we were told to ignore (``nohup``, a job in the background) stays ignored.

    Attributes:
        cause: number of the signal for which the task was cancelled, or None.
    """

    def __init__(self) -> None:
        self.cause: int | None = None
        self._loop = asyncio.get_running_loop()
        self._task = _current_task()
        self._command: Signalled | None = None
        self._heard = 0
        self._sending: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        """Begin to listen."""
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._loop.add_signal_handler(number, self._hear, number)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop listening."""
        for number in _SIGNALS:
            self._loop.remove_signal_handler(number)

    def send_to(self, command: Signalled) -> None:
        """Name the command that the first signal goes to; until then it ends everything."""
        self._command = command

    def _hear(self, number: int) -> None:
        self._heard += 1
        if self.cause is not None:
            return  # the end is under way
        if self._command is None or self._heard > 1:
            self.cause = number
            self._task.cancel()
            return
        sending = self._loop.create_task(_send(self._command, number))
        self._sending.add(sending)
        sending.add_done_callback(self._sending.discard)


async def _send(command: Signalled, number: int) -> None:
    await command.signal(number, tree=True)
    # A stopped process takes no signal; timeout(1) wakes it likewise.
    await command.signal(signal.SIGCONT, tree=True)


def _current_task() -> asyncio.Task[object]:
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("this is used in a coroutine")
    return task
