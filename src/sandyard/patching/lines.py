"""Lines of text with their ends, which a patch leaves as they are."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["bare", "end_near", "join_lines", "split_lines"]


def split_lines(text: str) -> list[str]:
    """Split a text into lines with their ends; a line feed ends one, and nothing else does."""
    lines = [line + "\n" for line in text.split("\n")]
    lines[-1] = lines[-1][:-1]
    return lines if lines[-1] else lines[:-1]


def bare(line: str) -> str:
    """A line without its end."""
    return line.removesuffix("\n").removesuffix("\r")


def end_near(lines: Sequence[str], at: int) -> str:
    """The end that a new line before the one at ``at`` has: that of the line before it, or after."""
    for near in (*lines[max(at - 1, 0) : at], *lines[at : at + 1], *lines[:1]):
        if near.endswith("\n"):
            return "\r\n" if near.endswith("\r\n") else "\n"
    return "\n"


def join_lines(lines: list[str], *, like: Sequence[str]) -> str:
    """Put changed lines together: only the last may have no end, and has one if it did before.

    Args:
        lines: the changed lines.
        like: the lines as they were.
    """
    ended = [
        line if line.endswith("\n") else line + end_near(lines, at)
        for at, line in enumerate(lines[:-1])
    ]
    last = lines[-1:]
    if last and like and not like[-1].endswith("\n"):
        last = [bare(last[0])]
    return "".join((*ended, *last))
