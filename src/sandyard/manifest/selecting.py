"""Which paths of a tree are meant: patterns in the language of .gitignore; all of it pure."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Final, NamedTuple

from pydantic import BeforeValidator

from sandyard.errors import ManifestError, shown
from sandyard.limits import GLOB_CHARS
from sandyard.manifest.base import plain_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    Names = tuple[str, ...]

__all__ = ["NOTHING", "Patterns", "Rules", "checked_patterns", "compile_rules", "rules_of_text"]

_ANY_DEPTH: Final = "**"
_CACHED: Final = 4_096
"""Patterns of one name that are kept compiled: trees have the same .gitignore in many places."""


class _Rule(NamedTuple):
    """One pattern.

    Attributes:
        parts: it, name by name; None is any number of names.
        wanted: False for a pattern behind ``!``, which takes back what an earlier one said.
        only_directories: whether it ends in a slash.
    """

    parts: tuple[re.Pattern[str] | None, ...]
    wanted: bool
    only_directories: bool


class Rules(NamedTuple):
    """Patterns, in order: the last one that matches a path decides."""

    rules: tuple[_Rule, ...] = ()

    def verdict(self, names: Names, *, is_dir: bool) -> bool | None:
        """Tell whether a path is meant; None if no pattern matches it.

        Args:
            names: the path, from the directory that the patterns are for.
            is_dir: whether it is a directory.
        """
        for rule in reversed(self.rules):
            if (is_dir or not rule.only_directories) and _matches(rule.parts, names):
                return rule.wanted
        return None


NOTHING: Final = Rules()


def _matches(parts: tuple[re.Pattern[str] | None, ...], names: Names) -> bool:
    """Match name by name; only the last gap is ever widened, so no pattern can make it explode."""
    at = here = 0
    gap, resumed = -1, 0
    while here < len(names):
        part = parts[at] if at < len(parts) else None
        if at < len(parts) and part is None:
            gap, resumed = at, here
            at += 1
        elif part is not None and part.match(names[here]):
            at += 1
            here += 1
        elif gap >= 0:
            resumed += 1
            at, here = gap + 1, resumed
        else:
            return False
    return all(part is None for part in parts[at:])


def rules_of_text(text: str) -> Rules:
    """Take the lines of a .gitignore; those that can't be a pattern match nothing, as for Git."""
    lines = [line.rstrip("\r") for line in text.split("\n")]
    kept = [line for line in lines if line.strip() and not line.startswith("#")]
    return Rules(tuple(rule for line in kept if (rule := _compiled(line)) is not None))


def compile_rules(patterns: Iterable[str]) -> Rules:
    """Compile patterns that were checked before."""
    return Rules(tuple(rule for line in patterns if (rule := _compiled(line)) is not None))


def _compiled(line: str) -> _Rule | None:
    """Take one line apart; None if it means nothing."""
    line = _without_trailing_blanks(line)
    wanted = not line.startswith("!")
    line = line.removeprefix("!")
    if len(line) > GLOB_CHARS or not line.strip("/"):
        return None
    only_directories = line.endswith("/")
    line = line.rstrip("/")
    anchored = "/" in line
    names = [name for name in line.split("/") if name]
    # A last '**' means what is beneath, so at least one name; elsewhere also none at all.
    parts: list[re.Pattern[str] | None] = [] if anchored else [None]
    parts.extend(None if name == _ANY_DEPTH else _one_name(name) for name in names)
    if names[-1] == _ANY_DEPTH:
        parts.append(_one_name("*"))
    return _Rule(tuple(parts), wanted, only_directories)


def _without_trailing_blanks(line: str) -> str:
    """Blanks at the end mean nothing, unless a backslash keeps them."""
    bare = line.rstrip(" ")
    slashes = len(bare) - len(bare.rstrip("\\"))
    return bare + " " if slashes % 2 and len(bare) < len(line) else bare


@lru_cache(_CACHED)
def _one_name(pattern: str) -> re.Pattern[str]:
    """Compile the pattern of one name; the standard library's translation never backtracks far."""
    import fnmatch  # noqa: PLC0415  # few manifests have patterns

    out: list[str] = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        if char == "\\" and at + 1 < len(pattern):
            at += 1
            out.append(_literal(pattern[at]))
        elif char == "[":
            end = pattern.find("]", at + (3 if pattern[at + 1 : at + 2] in {"!", "^"} else 2))
            if end < 0:
                out.append("[[]")
            else:
                inner = pattern[at + 1 : end]
                out.append(f"[{'!' + inner[1:] if inner.startswith('^') else inner}]")
                at = end
        else:
            out.append(char)
        at += 1
    return re.compile(fnmatch.translate("".join(out)))


def _literal(char: str) -> str:
    return f"[{char}]" if char in "*?[" else char


# --- as fields of an entry --------------------------------------------------------------------


def checked_patterns(value: object) -> tuple[str, ...]:
    """Take patterns as a caller gives them.

    Raises:
        ManifestError: they are no list of str, or one of them means nothing.
    """
    if isinstance(value, str) or not isinstance(value, list | tuple):
        raise ManifestError(
            f"patterns are a list of str, such as ['*.log', '/build/'], not {shown(value)}"
        )
    for pattern in value:
        _check_pattern(pattern)
    return tuple(value)


def _check_pattern(pattern: object) -> None:
    if not isinstance(pattern, str):
        raise ManifestError(f"a pattern is a str, not {shown(pattern)}")
    plain_text(pattern, f"the pattern {shown(pattern)}")
    if len(pattern) > GLOB_CHARS:
        raise ManifestError(f"a pattern has {len(pattern)} characters; {GLOB_CHARS} are the most")
    if ".." in pattern.split("/"):
        raise ManifestError(f"the pattern {shown(pattern)} has '..', which no path in a tree has")
    if _compiled(pattern) is None:
        raise ManifestError(f"the pattern {shown(pattern)} names nothing; '*' is all there is")


Patterns = Annotated[tuple[str, ...], BeforeValidator(checked_patterns)]
"""Patterns in the language of .gitignore: ``*.log`` anywhere, ``/build/`` at the top, ``!keep``."""
