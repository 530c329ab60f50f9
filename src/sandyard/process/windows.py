"""Owns what is asked of terminals: sizes, names, what is typed; checked before anything is done."""

from __future__ import annotations

from sandyard.errors import ArgumentError, ArgumentTypeError
from sandyard.limits import TERMINAL_NAME_CHARS, TERMINAL_SCROLLBACK_MAX, TERMINAL_SIDE_MAX

__all__ = ["checked_input", "checked_name", "checked_scrollback", "checked_window"]


def checked_window(rows: object, columns: object) -> tuple[int, int]:
    """Rows and columns of a terminal.

    Raises:
        ArgumentTypeError: if they are no whole numbers.
        ArgumentError: if they are not from 1 to 65,535.
    """
    return _side("rows", rows), _side("columns", columns)


def _side(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ArgumentTypeError(
            f"{name} is a whole number", op="terminal", argument=name, value=value
        )
    if not 1 <= value <= TERMINAL_SIDE_MAX:
        raise ArgumentError(
            f"{name} is from 1 to {TERMINAL_SIDE_MAX}", op="terminal", argument=name, value=value
        )
    return value


def checked_scrollback(size: object) -> int:
    """Bytes of output to keep.

    Raises:
        ArgumentTypeError: if it is no whole number.
        ArgumentError: if it is negative, or above 1 GiB.
    """
    if isinstance(size, bool) or not isinstance(size, int):
        raise ArgumentTypeError(
            "scrollback is a number of bytes", op="terminal", argument="scrollback", value=size
        )
    if not 0 <= size <= TERMINAL_SCROLLBACK_MAX:
        raise ArgumentError(
            f"scrollback is from 0 to {TERMINAL_SCROLLBACK_MAX} bytes",
            op="terminal",
            argument="scrollback",
            value=size,
        )
    return size


def checked_name(name: object) -> str | None:
    """The name of a terminal; None for its number.

    Raises:
        ArgumentTypeError: if it is no string.
        ArgumentError: if it is empty, long, or holds what can't be printed.
    """
    if name is None:
        return None
    if not isinstance(name, str):
        raise ArgumentTypeError("name is a string", op="terminal", argument="name", value=name)
    if not 0 < len(name) <= TERMINAL_NAME_CHARS or not name.isprintable() or name.isdecimal():
        raise ArgumentError(
            f"a terminal's name has 1 to {TERMINAL_NAME_CHARS} printable characters, and is no number: "
            "those name terminals without a name",
            op="terminal",
            argument="name",
            value=name,
        )
    return name


def checked_input(data: object) -> None:
    """Refuses what can't be typed.

    Raises:
        ArgumentTypeError: if it is no bytes.
    """
    if not isinstance(data, bytes | bytearray | memoryview):
        hint = "; encode text first" if isinstance(data, str) else ""
        raise ArgumentTypeError(
            f"what is typed is bytes, not {type(data).__name__}{hint}",
            op="terminal",
            argument="data",
            value=data,
        )
