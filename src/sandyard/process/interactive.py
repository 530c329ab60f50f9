"""Owns what a sandbox has of terminals and of the old API's processes, made when it is first asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sandyard.process.commands import Commands
    from sandyard.process.slots import PtySlots
    from sandyard.process.terminals import Terminals

__all__ = ["Interactive"]


class Interactive:
    """The terminals and numbered processes of one sandbox; most sessions never have one.

    Args:
        commands: the commands of the sandbox; they outlive this object.
    """

    __slots__ = ("_commands", "_slots", "_terminals")

    def __init__(self, commands: Commands) -> None:
        self._commands = commands
        self._terminals: Terminals | None = None
        self._slots: PtySlots | None = None

    @property
    def terminals(self) -> Terminals:
        """The terminals of the sandbox."""
        if self._terminals is None:
            from sandyard.process.terminals import Terminals  # noqa: PLC0415  # not all use them

            self._terminals = Terminals(self._commands.init, self._commands.watch)
        return self._terminals

    @property
    def slots(self) -> PtySlots:
        """The processes that callers of the old API know by number."""
        if self._slots is None:
            from sandyard.process.slots import PtySlots  # noqa: PLC0415  # not all use them

            self._slots = PtySlots(self._commands)
        return self._slots

    async def end_all(self) -> None:
        """Ends all of them."""
        if self._slots is not None:
            await self._slots.end_all()
        if self._terminals is not None:
            await self._terminals.end_all()

    def leave(self, notice: str) -> None:
        """Says why those that run end in a moment: the sandbox does, with all that is inside."""
        if self._terminals is not None:
            self._terminals.leave(notice)
