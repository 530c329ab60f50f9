"""Owns the terminals of one sandbox: their numbers and names, what is listed, what they hold of the host."""

from __future__ import annotations

from bisect import insort
from typing import TYPE_CHECKING
from weakref import WeakSet

from sandyard.errors import ArgumentError, ResourceLimitError
from sandyard.finishing import all_finished
from sandyard.limits import TERMINALS_ENDED_KEPT
from sandyard.process.budget import descriptor_budget
from sandyard.process.terminal import Terminal, TerminalCall
from sandyard.process.watch import LimitWatch

if TYPE_CHECKING:
    from sandyard.process.starter import Starter

__all__ = ["Terminals"]

_DESCRIPTORS = 1
"""What a terminal holds on the host: its master."""


class Terminals:
    """The terminals of one sandbox.

    Args:
        init: the sandbox's first process; it outlives this object.
        watch: what is looked at around each command; None where no limit needs that.
    """

    def __init__(self, init: Starter, watch: LimitWatch | None) -> None:
        self._init = init
        self._watch = watch
        self._last = 0
        self._listed: dict[str, Terminal] = {}  # in the order of their births
        self._over: list[
            tuple[int, str]
        ] = []  # numbers and names of those that have ended, likewise
        self._starting: set[str | None] = set()  # names of those that are not listed yet
        self._unlisted: WeakSet[Terminal] = WeakSet()  # whoever opened them owns them

    async def open(self, call: TerminalCall) -> Terminal:
        """Starts a command on a terminal.

        Raises:
            ArgumentError: if another one that is listed has the name; or as ``Terminal.start``.
            ResourceLimitError: if the terminals hold all descriptors that they may, or the
                workspace is too large; or as ``Terminal.start``.
            ExecTransportError: as ``Terminal.start``.
        """
        if self._watch is not None:
            await self._watch.check(call.words)
        if call.name is not None:
            self._reserve(call.name)
        try:
            terminal = await self._started(call)
        finally:
            self._starting.discard(call.name)
        # Whoever lists them may close them, which one that is being started could not stand.
        if call.listed:
            self._listed[terminal.name] = terminal
            if terminal.exit_code is not None:  # it has ended while it was started
                self._outlive(terminal)
        else:
            self._unlisted.add(terminal)
        return terminal

    async def _started(self, call: TerminalCall) -> Terminal:
        if not descriptor_budget.settle_in(_DESCRIPTORS):
            raise _no_room()
        try:
            await descriptor_budget.take(_DESCRIPTORS)
        except BaseException:
            descriptor_budget.move_out(_DESCRIPTORS)
            raise
        self._last += 1
        terminal = Terminal(self._init, call, self._last, self._ended, self._watch)
        try:
            await terminal.start(call.spawn)
            if self._watch is not None and self._watch.quota is not None:
                terminal.watch_size(self._watch.quota)
        except BaseException:
            await terminal.close()
            raise
        return terminal

    def listed(self) -> tuple[Terminal, ...]:
        """Those that run, and the newest of those that have ended, in the order of their births."""
        return tuple(self._listed.values())

    async def end_all(self) -> None:
        """Ends all that run."""
        await all_finished(terminal.close() for terminal in self.listed())

    def leave(self, notice: str) -> None:
        """Says why those that run end in a moment: the sandbox does, with all that is inside."""
        for terminal in (*self.listed(), *self._unlisted):
            terminal.foretell(notice)

    def _reserve(self, name: str) -> None:
        """Keeps a name for one that is being started; one that has ended gives its own up.

        Raises:
            ArgumentError: if another one that runs or is being started has it.
        """
        other = self._listed.get(name)
        if name in self._starting or (other is not None and other.exit_code is None):
            raise _taken(name)
        if other is not None:
            self._over.remove((other.id, name))
            del self._listed[name]
        self._starting.add(name)

    def _ended(self, terminal: Terminal) -> None:
        descriptor_budget.give(_DESCRIPTORS)
        descriptor_budget.move_out(_DESCRIPTORS)
        if self._listed.get(terminal.name) is terminal:
            self._outlive(terminal)

    def _outlive(self, terminal: Terminal) -> None:
        """Lists one that has ended, and no more of those that have than are kept."""
        insort(self._over, (terminal.id, terminal.name))
        if len(self._over) > TERMINALS_ENDED_KEPT:
            _, name = self._over.pop(0)
            del self._listed[name]


def _no_room() -> ResourceLimitError:
    limit = descriptor_budget.limit()
    return ResourceLimitError(
        "the terminals and background processes of this program hold all descriptors that they may, so "
        "that commands have some left; close some, or raise the program's limit on open files "
        "(ulimit -n)",
        limit="open_files",
        value=limit,
        unit="descriptors",
        op="terminal",
        retryable=True,
    )


def _taken(name: str) -> ArgumentError:
    return ArgumentError(
        f"a terminal named {name!r} runs already; close it, or choose another name",
        op="terminal",
        argument="name",
        value=name,
    )
