"""Owns our terminal while a session's terminal is shown on it: raw mode, its size, and its way back."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import termios
import tty
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Final, Self

from sandyard import ArgumentError
from sandyard.cli.pumping import Inlet
from sandyard.limits import TERMINAL_COLUMNS, TERMINAL_ROWS

__all__ = ["Screen", "ScreenModes", "Typing", "check_terminal", "detach_key", "window_size"]

_STDIN, _STDOUT = 0, 1
_CONTROL_KEY: Final = re.compile(r"ctrl-([a-z@\[\\\]^_])", re.IGNORECASE)
_CONTROL_BITS: Final = 0x1F

_MODE: Final = re.compile(rb"\x1b\[\?([0-9;]+)([hl])")
_MODE_BYTES: Final = 64
"""Longest sequence that is looked for, so that one is found that two chunks share."""

_SWITCHED_ON: Final = frozenset(
    {1, 9, 47, 1000, 1002, 1003, 1004, 1005, 1006, 1015, 1047, 1049, 2004}
)
"""Modes of xterm that programs switch on and off again: keys, mouse, focus, the other screen, pasting."""

_CURSOR: Final = 25
"""The cursor is shown; the one mode that is on by itself."""


def detach_key(text: str) -> bytes:
    """The byte that a key sends; empty for ``none``.

    Raises:
        ArgumentError: it is no key that has one.
    """
    if text == "none":
        return b""
    found = _CONTROL_KEY.fullmatch(text)
    if found is None:
        raise ArgumentError(
            "--detach-key is ctrl- and a letter or one of @ [ \\ ] ^ _; or none",
            op="attach",
            argument="--detach-key",
            value=text,
        )
    return bytes([ord(found[1].upper()) & _CONTROL_BITS])


def check_terminal() -> None:
    """Refuse to go on without a terminal.

    Raises:
        ArgumentError: stdin or stdout is none.
    """
    if not (os.isatty(_STDIN) and os.isatty(_STDOUT)):
        raise ArgumentError(
            "stdin and stdout have to be a terminal; without one, use sandyard exec",
            op="attach",
            argument="stdin",
            value=None,
        )


def window_size() -> tuple[int, int]:
    """Rows and columns of our terminal; what is usual where it does not know them itself."""
    size = os.get_terminal_size(_STDOUT)
    return size.lines or TERMINAL_ROWS, size.columns or TERMINAL_COLUMNS


class Screen:
    """Our terminal in raw mode, for the length of a block; afterwards it is as it was.

    Args:
        resized: called when its window has another size, in the loop.

    Raises:
        ArgumentError: stdin or stdout is no terminal.
    """

    def __init__(self, resized: Callable[[], None]) -> None:
        self._resized = resized
        check_terminal()
        self._before = termios.tcgetattr(_STDIN)
        self._loop = asyncio.get_running_loop()

    def __enter__(self) -> Self:
        """Pass keys on as they are."""
        self._loop.add_signal_handler(signal.SIGWINCH, self._resized)
        self._loop.add_signal_handler(signal.SIGCONT, self._go_on)
        tty.setraw(_STDIN, termios.TCSANOW)  # what was typed already is kept
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the terminal back."""
        self._loop.remove_signal_handler(signal.SIGWINCH)
        self._loop.remove_signal_handler(signal.SIGCONT)
        termios.tcsetattr(_STDIN, termios.TCSANOW, self._before)

    def _go_on(self) -> None:
        """Take the terminal again that a shell had given back to itself while we were stopped."""
        tty.setraw(_STDIN, termios.TCSANOW)  # what was typed already is kept
        self._resized()


class ScreenModes:
    """Which modes of a terminal a program has switched on, by what it shows."""

    def __init__(self) -> None:
        self._on: dict[int, bool] = {}
        self._rest = b""

    def feed(self, chunk: bytes) -> None:
        """Look at what is shown."""
        text = self._rest + chunk
        end = 0
        for found in _MODE.finditer(text):
            end = found.end()
            for number in found[1].split(b";"):
                if number:
                    self._on[int(number[:5])] = found[2] == b"h"
        self._rest = text[end:][-_MODE_BYTES:]

    def undo(self) -> bytes:
        """What switches them back, for a program that goes on without us."""
        off = [mode for mode in sorted(_SWITCHED_ON) if self._on.get(mode)]
        shown = b"" if self._on.get(_CURSOR, True) else b"\x1b[?25h"
        return b"".join(b"\x1b[?%dl" % mode for mode in off) + shown + b"\x1b[0m"


class Typing:
    """What is typed on our terminal, up to the key that detaches; iterate it once.

    Args:
        key: that key's byte, or empty.

    Attributes:
        detached: set once it was pressed.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        self.detached = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Iterate over it."""
        async for data in Inlet(_STDIN):
            typed, key, _ = data.partition(self._key) if self._key else (data, b"", b"")
            if typed:
                yield typed
            if key:
                self.detached.set()
                return
