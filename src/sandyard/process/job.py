"""Owns what init tells of one command: birth, output, exit, last process, and refusals afterwards."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

from sandyard.limits import UNOWNED_KINDS
from sandyard.process.capture import Capture
from sandyard.process.latch import Latch
from sandyard.process.wire import (
    DATAGRAM_LIMIT,
    Event,
    Exited,
    Failure,
    Gone,
    Pipes,
    ProtocolError,
    Spawned,
    Written,
)
from sandyard.types import RefusedCall

__all__ = ["CapturedJob", "Job", "TerminalJob", "UnownedRefusals", "refused_since"]


class Job:
    """One command as init knows it.

    Attributes:
        number: its number on the channel.
        exited: its exit, or the failure of its birth, or None if the sandbox ended first.
        gone: set when nothing that it left running is left.
        pid: its number inside, where that was asked for; None if it was never born.
    """

    __slots__ = ("exited", "gone", "number", "pid")

    def __init__(self, number: int, *, report: bool = False) -> None:
        self.number = number
        self.pid: Latch[int | None] | None = Latch() if report else None
        self.exited: Latch[Exited | Failure | None] = Latch()
        self.gone: Latch[None] = Latch()

    def end(self, outcome: Exited | Failure | None) -> None:
        """Tells whoever waits how it has ended."""
        self.exited.set(outcome)
        if self.pid is not None:
            self.pid.set(None)


class TerminalJob(Job):
    """A command with a terminal, whose master is held here until somebody takes it.

    Attributes:
        born: set when the master has come, or can't come any more.
        missed: True if it came, and this program had no descriptor left for it.
    """

    __slots__ = ("_forsaken", "_master", "born", "missed")

    def __init__(self, number: int) -> None:
        super().__init__(number)
        import sandyard.process.passing  # noqa: PLC0415, F401  # where a failure is told, not below

        self.born: Latch[None] = Latch()
        self._master: int | None = None
        self._forsaken = False
        self.missed = False

    @staticmethod
    def receive(channel: socket.socket) -> tuple[bytes, list[int] | None]:
        """One datagram, and the descriptors that came with it, which are the caller's to close.

        In their place is None where this program had no descriptor left.
        """
        from sandyard.process.passing import receive_passed  # noqa: PLC0415  # not all have terminals

        return receive_passed(channel, DATAGRAM_LIMIT + 1)

    def arrive(self, event: Event, passed: list[int] | None) -> None:
        """Holds the master that was passed; one that nobody wants any more is closed.

        None for ``passed`` stands for one that was lost on its way, for want of a descriptor.

        Raises:
            ProtocolError: if it is no master; then ``passed`` is as it was.
        """
        from sandyard.process.passing import taken_master  # noqa: PLC0415  # not all have terminals

        if not isinstance(event, Spawned):
            raise ProtocolError("a terminal is born otherwise")
        if passed is None:
            self.missed = True
            self.born.set(None)
            return
        master = taken_master(passed)
        if self._forsaken:
            os.close(master)
        else:
            self._master = master
        self.born.set(None)

    def take(self) -> int | None:
        """Gives the master away, to be closed by whoever takes it; None if there is none."""
        master, self._master = self._master, None
        return master

    def forsake(self) -> None:
        """Closes the master, whether it has come or is still to come."""
        self._forsaken = True
        if (master := self.take()) is not None:
            os.close(master)

    def end(self, outcome: Exited | Failure | None) -> None:
        """Takes note of the end, after which no master comes."""
        super().end(outcome)
        self.born.set(None)


class CapturedJob(Job):
    """A command that writes into pipes of the sandbox's own.

    Most commands end within a moment and write little: for these no pipe is made here, and nothing is
    read. Whoever has waited longer asks for the pipes.

    Args:
        number: its number on the channel.
        captures: what takes its stdout and its stderr.

    Attributes:
        come: set when the pipes have come that were asked for last, or can't come any more; None
            before they are asked for.
        missed: True if they came, and this program had no descriptor left for them.
        failed: why output was lost; None while all is well.
    """

    __slots__ = ("_captures", "_forsaken", "_pipes", "come", "failed", "missed")

    def __init__(self, number: int, captures: tuple[Capture, Capture]) -> None:
        super().__init__(number)
        self._captures = captures
        self._pipes: tuple[int, int] | None = None
        self._forsaken = False
        self.come: Latch[None] | None = None
        self.missed = False
        self.failed: MemoryError | None = None

    def expect(self) -> Latch[None]:
        """Prepares for the pipes to come; returns what is set when they have."""
        import sandyard.process.passing  # noqa: PLC0415, F401  # where a failure is told, not below

        self.come = Latch()
        return self.come

    def arrive(self, event: Event, passed: list[int] | None) -> None:
        """Holds the pipes that were passed; such as nobody wants any more are closed.

        None for ``passed`` stands for pipes that were lost on their way, for want of a descriptor.

        Raises:
            ProtocolError: if it is something else; then ``passed`` is as it was.
        """
        from sandyard.process.passing import (  # noqa: PLC0415  # most commands are short
            close_all,
            taken_pipes,
        )

        if not isinstance(event, Pipes):
            raise ProtocolError("pipes come otherwise")
        self.missed = passed is None
        if passed is not None:
            try:
                self._pipes = taken_pipes(passed)
            except OSError:  # no descriptor is left here
                close_all(passed)
                self.missed = True
            if self._forsaken:
                self.forsake()
        if self.come is not None:
            self.come.set(None)

    def take_pipes(self) -> tuple[int, int] | None:
        """Gives the pipes away, to be closed by whoever takes them; None if there are none."""
        pipes, self._pipes = self._pipes, None
        return pipes

    def forsake(self) -> None:
        """Closes the pipes, whether they have come or are still to come."""
        self._forsaken = True
        for fd in self.take_pipes() or ():
            os.close(fd)

    def take(self, event: Written) -> None:
        """Takes note of what it wrote."""
        self._feed(event.stream, event.data)

    def end(self, outcome: Exited | Failure | None) -> None:
        """Takes note of its end, and of what came with that; nobody asked for its number."""
        if isinstance(outcome, Exited) and not self.exited.is_set:
            if outcome.stdout:
                self._feed(0, outcome.stdout)
            if outcome.stderr:
                self._feed(1, outcome.stderr)
        self.exited.set(outcome)
        if self.come is not None:
            self.come.set(None)

    def _feed(self, stream: int, data: bytes) -> None:
        try:
            self._captures[stream].feed(data)
        except MemoryError as error:  # what is missing nobody counted, so there is no result
            self.failed = error


def refused_since(exited: Exited, gone: Gone) -> tuple[RefusedCall, ...]:
    """What a job's account has gained between its command's exit and its last process's end."""
    told = {call[1:3]: call.times for call in exited.kinds}
    gained = (
        call._replace(times=call.times - told.get(call[1:3], 0))  # what was refused stays so
        for call in gone.kinds
    )
    return tuple(call for call in gained if call.times > 0)


class UnownedRefusals:
    """The kinds of refused calls of one sandbox that no command's result tells.

    Attributes:
        heard: called with what leftovers were refused when the last of them has ended; None for nobody.
    """

    heard: Callable[[tuple[RefusedCall, ...]], None] | None = None

    def __init__(self) -> None:
        self._calls: dict[tuple[int, int], RefusedCall] = {}

    def add(self, outcome: Exited | Failure | None, gone: Gone) -> None:
        """Adds what a job's leftovers were refused."""
        if not isinstance(outcome, Exited):
            return
        calls = tuple(refused_since(outcome, gone))
        if calls and self.heard is not None:
            self.heard(calls)
        for call in calls:
            kind = call.number, call.error
            if (known := self._calls.get(kind)) is not None:
                self._calls[kind] = known._replace(times=known.times + call.times)
            elif len(self._calls) < UNOWNED_KINDS:
                self._calls[kind] = call

    def calls(self) -> tuple[RefusedCall, ...]:
        """The first kinds of them, each with its count."""
        return tuple(self._calls.values())
