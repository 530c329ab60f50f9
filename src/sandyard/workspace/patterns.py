"""Patterns of glob, matched name by name: pure, and in time that no pattern can make explode."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from sandyard.errors import ArgumentError, ArgumentTypeError, shown
from sandyard.limits import GLOB_BRACES, GLOB_CHARS

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Glob", "compile_glob"]

_ANY_DEPTH: Final = "**"
States = frozenset[tuple[int, int]]
"""How far each alternative of a pattern has got: its number, and names matched of it."""


class Glob(NamedTuple):
    """A pattern.

    Attributes:
        alternatives: one for each way through its braces, each name by name.
    """

    alternatives: tuple[tuple[str, ...], ...]

    def start(self) -> States:
        """Where matching begins, at the directory that is searched."""
        return self._closed((number, 0) for number in range(len(self.alternatives)))

    def step(self, states: States, name: str) -> States:
        """Where matching is after one more name; nothing if it can't match any more."""
        after: set[tuple[int, int]] = set()
        for number, at in states:
            parts = self.alternatives[number]
            if at == len(parts):
                continue
            if parts[at] == _ANY_DEPTH:
                if not name.startswith("."):
                    after.add((number, at))
            elif matches(parts[at], name):
                after.add((number, at + 1))
        return self._closed(after)

    def is_match(self, states: States) -> bool:
        """Tell whether what was stepped through is a match."""
        return any(at == len(self.alternatives[number]) for number, at in states)

    def goes_on(self, states: States) -> bool:
        """Tell whether something beneath could match."""
        return any(at < len(self.alternatives[number]) for number, at in states)

    def _closed(self, states: Iterator[tuple[int, int]] | set[tuple[int, int]]) -> States:
        """``**`` matches no directory at all, too."""
        found: set[tuple[int, int]] = set()
        for number, at in states:
            here = at
            found.add((number, here))
            parts = self.alternatives[number]
            while here < len(parts) and parts[here] == _ANY_DEPTH:
                here += 1
                found.add((number, here))
        return frozenset(found)


def compile_glob(pattern: object) -> Glob:
    """Take a pattern apart.

    Args:
        pattern: ``*`` and ``?`` stand for characters of one name, ``[a-z]`` and ``[!a-z]`` for one of
            some, ``**`` as a whole name for any number of directories, ``{a,b}`` for either. Names
            that begin with a dot are matched only by a pattern that begins with one.

    Raises:
        ArgumentTypeError: it is no str.
        ArgumentError: it is empty, absolute, too long, or has ``..``, a NUL or too many braces.
    """
    if not isinstance(pattern, str):
        raise ArgumentTypeError(
            f"pattern must be a str, not {shown(pattern)}",
            op="glob",
            argument="pattern",
            value=pattern,
        )
    problem = _problem(pattern)
    found: list[tuple[str, ...]] = []
    if not problem:
        for alternative in _braces(pattern):
            parts = tuple(part for part in alternative.split("/") if part not in {"", "."})
            if len(found) == GLOB_BRACES:
                problem = f"has more than {GLOB_BRACES} alternatives in braces; give fewer"
                break
            if ".." in parts:
                problem = "has '..'; give path= for the directory that is meant"
            found.append(_without_repeats(parts))
    if problem:
        raise ArgumentError(
            f"pattern {shown(pattern)} {problem}", op="glob", argument="pattern", value=pattern
        )
    return Glob(tuple(dict.fromkeys(found)))


def _without_repeats(parts: tuple[str, ...]) -> tuple[str, ...]:
    """``**`` after ``**`` means nothing more, and would cost at every name."""
    return tuple(
        part
        for at, part in enumerate(parts)
        if part != _ANY_DEPTH or not at or parts[at - 1] != _ANY_DEPTH
    )


def _problem(pattern: str) -> str:
    if not pattern.strip("/."):
        return "names nothing; '*' matches what is in a directory, '**/*' what is beneath it"
    if pattern.startswith("/"):
        return "is absolute; give path= for the directory that is searched"
    if "\0" in pattern:
        return "has a NUL character, which no name holds; remove it"
    return f"is longer than {GLOB_CHARS} characters" if len(pattern) > GLOB_CHARS else ""


def _braces(pattern: str) -> Iterator[str]:
    """Each way through the braces of a pattern, the left ones first; lone braces stand as they are."""
    waiting = [pattern]
    while waiting:
        here = waiting.pop()
        opening, closing = _first_pair(here)
        if closing < 0:
            yield here
            continue
        choices = here[opening + 1 : closing].split(",")
        waiting += [here[:opening] + choice + here[closing + 1 :] for choice in choices[::-1]]


def _first_pair(pattern: str) -> tuple[int, int]:
    """Where the first braces with alternatives stand; -1 where there are none."""
    opening = -1
    for at, char in enumerate(pattern):
        if char == "{":
            opening = at
        elif char == "}" and opening >= 0 and "," in pattern[opening:at]:
            return opening, at
    return -1, -1


def matches(pattern: str, name: str) -> bool:
    """Tell whether a name matches a pattern of one name.

    A star is given back one character at a time, and only the last one: so the time is at most the
    product of the two lengths.
    """
    if name.startswith(".") and not pattern.startswith("."):
        return False
    at = here = 0
    star, resumed = -1, 0
    while here < len(name):
        if at < len(pattern) and pattern[at] == "*":
            star, resumed = at, here
            at += 1
            continue
        width = _width(pattern, at, name[here])
        if width:
            at += width
            here += 1
        elif star >= 0:
            resumed += 1
            at, here = star + 1, resumed
        else:
            return False
    return all(char == "*" for char in pattern[at:])


def _width(pattern: str, at: int, char: str) -> int:
    """Characters of the pattern that match one of a name; 0 if they don't."""
    if at >= len(pattern):
        return 0
    if pattern[at] == "?":
        return 1
    if pattern[at] == "[":
        end = _set_end(pattern, at)
        if end:
            return end - at + 1 if _in_set(pattern[at + 1 : end], char) else 0
    return 1 if pattern[at] == char else 0


def _set_end(pattern: str, at: int) -> int:
    """Where a set ends, or 0: then its bracket is a character. A ``]`` that comes first is in it."""
    first = at + 2 if pattern[at + 1 : at + 2] == "!" else at + 1
    return max(0, pattern.find("]", first + 1))


def _in_set(body: str, char: str) -> bool:
    wanted = not body.startswith("!")
    if not wanted:
        body = body[1:]
    at, found = 0, False
    while at < len(body):
        if at + 2 < len(body) and body[at + 1] == "-":
            found = found or body[at] <= char <= body[at + 2]
            at += 3
        else:
            found = found or body[at] == char
            at += 1
    return found is wanted
