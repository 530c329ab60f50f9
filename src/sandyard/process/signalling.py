"""Owns how callers name signals, and whom they reach."""

from __future__ import annotations

import re
import signal
from typing import TYPE_CHECKING, Final

from sandyard.errors import ArgumentError, ArgumentTypeError
from sandyard.process.wire import SignalTarget

if TYPE_CHECKING:
    from sandyard.errors import OpName

__all__ = ["checked_signal", "checked_target"]

_REAL_TIME: Final = re.compile(r"RTMIN\+([0-9]{1,2})|RTMAX-([0-9]{1,2})")

_TARGETS: Final = {
    "command": SignalTarget.COMMAND,
    "tree": SignalTarget.TREE,
    "foreground": SignalTarget.FOREGROUND,
}


def checked_signal(said: object, op: OpName, argument: str) -> int:
    """The number of a signal that is given by number or by name, with or without "SIG".

    Args:
        said: what a caller gave; names of real-time signals are ``RTMIN+N`` and ``RTMAX-N``.
        op: whose it is, and ``argument`` which.

    Raises:
        ArgumentTypeError: if it is neither a number nor a string.
        ArgumentError: if there is no such signal.
    """
    if isinstance(said, bool) or not isinstance(said, int | str):
        raise ArgumentTypeError(
            "a signal is a number, or a name such as 'INT'", op=op, argument=argument, value=said
        )
    number = said if isinstance(said, int) else _named(said.upper().removeprefix("SIG"))
    if 0 < number < signal.NSIG:
        return int(number)
    raise ArgumentError(
        "there is no such signal; give a number from 1 to 64, or a name such as 'INT' or 'RTMIN+1'",
        op=op,
        argument=argument,
        value=said,
    )


def _named(name: str) -> int:
    """The number of a signal; 0 where there is none."""
    found = signal.Signals.__members__.get(f"SIG{name}")
    if found is not None:
        return found
    real_time = _REAL_TIME.fullmatch(name)
    if real_time is None:
        return 0
    up, down = real_time.groups()
    number = signal.SIGRTMIN + int(up) if up else signal.SIGRTMAX - int(down)
    return number if signal.SIGRTMIN <= number <= signal.SIGRTMAX else 0


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
