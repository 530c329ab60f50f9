"""How scripts/demo.py speaks: lines that hold or do not, in colour where a terminal shows it."""

from __future__ import annotations

import os
import sys


class Tour:
    """Prints the lines, and remembers whether one did not hold."""

    def __init__(self) -> None:
        self.broken = 0
        plain = (
            not sys.stdout.isatty()
            or os.environ.get("NO_COLOR")
            or os.environ.get("TERM") == "dumb"
        )
        self._colours = {} if plain else {"ok": "32", "no": "31;1", "bold": "1", "dim": "2"}

    def paint(self, text: str, colour: str) -> str:
        """Colour a text where the terminal can show it."""
        code = self._colours.get(colour)
        return f"\033[{code}m{text}\033[0m" if code else text

    def head(self, text: str, note: str = "") -> None:
        """Begin a chapter."""
        print(f"\n{self.paint(text, 'bold')}{'  ' if note else ''}{self.paint(note, 'dim')}")

    def line(self, held: bool, text: str) -> None:
        """Say something, and whether it holds."""
        self.broken += not held
        mark = self.paint("  ok", "ok") if held else self.paint("FAIL", "no")
        print(f"{mark}  {text}", flush=True)

    def tell(self, text: str) -> None:
        """Say something that claims nothing."""
        print(f"      {text}", flush=True)

    def note(self, text: str) -> None:
        """Say something by the way."""
        print(f"      {self.paint(text, 'dim')}", flush=True)


def shorten(text: str, width: int) -> str:
    """Cut a text to a width."""
    return text if len(text) <= width else text[: width - 1] + "…"


def last_line(output: bytes) -> str:
    """The last line of an output that is not empty."""
    lines = output.decode(errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else ""


def ms(seconds: float) -> str:
    """A duration for people."""
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"
