"""Owns how callers name signals, and whom they reach."""

from __future__ import annotations

import signal
from typing import Final

from sandyard.errors import ArgumentError, ArgumentTypeError
from sandyard.process.wire import SignalTarget

__all__ = ["checked_signal", "checked_target"]

_TARGETS: Final = {
    "command": SignalTarget.COMMAND,
    "tree": SignalTarget.TREE,
    "foreground": SignalTarget.FOREGROUND,
}


def checked_signal(number: object) -> int:
    """The number of a signal that is given by number or by name, with or without "SIG".

    Raises:
        ArgumentTypeError: if it is neither a number nor a string.
        ArgumentError: if there is no such signal.
    """
    if isinstance(number, bool) or not isinstance(number, int | str):
        raise ArgumentTypeError(
            "a signal is a number, or a name such as 'INT'",
            op="terminal",
            argument="number",
            value=number,
        )
    if isinstance(number, str):
        name = number.upper()
        found = signal.Signals.__members__.get(name if name.startswith("SIG") else f"SIG{name}")
        if found is not None:
            return int(found)
    elif 0 < number < signal.NSIG:
        return number
    raise ArgumentError(
        "there is no such signal; give a number from 1 to 64, or a name such as 'INT'",
        op="terminal",
        argument="number",
        value=number,
    )


def checked_target(to: object) -> SignalTarget:
    """Whom a signal is for.

    Raises:
        ArgumentError: if it is none of the three words.
    """
    found = _TARGETS.get(to) if isinstance(to, str) else None
    if found is None:
        raise ArgumentError(
            "a signal goes to 'command', 'tree' or 'foreground'",
            op="terminal",
            argument="to",
            value=to,
        )
    return found
