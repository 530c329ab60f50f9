"""Which entries of an overlay programs outside would run or obey, by their names alone. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sandyard.planted import GIT_DIRECTORY, GIT_PARTS, PLANTED

if TYPE_CHECKING:
    from sandyard.workspace.names import Names

__all__ = ["planted_at", "planted_reader"]

_READERS: Final = {each.name: each.reader for each in PLANTED}
_GIT: Final = "Git: runs it, or reads from it what to run"
_PARTS: Final = tuple(tuple(part.split("/")) for part in GIT_PARTS)
_NESTED: Final = frozenset({"modules", "worktrees"})
"""Where a Git directory has others in it (gitrepository-layout(5))."""


def planted_reader(names: Names) -> str | None:
    """The program that would run or obey something, and how; None for most."""
    at = planted_at(names)
    if at is None:
        return None
    return _READERS.get(names[at], _GIT)


def planted_at(names: Names) -> int | None:
    """Which part of a path makes programs outside look at it; None for most."""
    for at, name in enumerate(names):
        if name in _READERS:
            return at
        if name != GIT_DIRECTORY:
            continue
        inner = names[at + 1 :]
        if not inner:
            return at  # a repository, or what leads to one
        for start in range(len(inner)):
            if start and inner[0] not in _NESTED:
                break
            if any(inner[start : start + len(part)] == part for part in _PARTS):
                return at + 1 + start
    return None
