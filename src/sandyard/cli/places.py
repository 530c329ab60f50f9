"""Paths on the command line: of this machine, or SESSION:PATH of a session that stays."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from typing import Final

from sandyard import ArgumentError
from sandyard.errors import OpName

__all__ = ["Place", "place_of", "session_place"]

_IN_SESSION: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*):(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Place:
    """Where something is, or is to be.

    Attributes:
        session: the session's name or id; None for this machine.
        path: the path there.
    """

    session: str | None
    path: str

    @property
    def name(self) -> str:
        """The last name of the path; empty where that is the directory itself, or one above it."""
        name = posixpath.basename(self.path.rstrip("/"))
        return "" if name in {".", ".."} else name

    def __str__(self) -> str:
        """The place as it is given on the command line."""
        return self.path if self.session is None else f"{self.session}:{self.path}"


def place_of(text: str) -> Place:
    """Tell a path in a session, ``SESSION:PATH``, from one of this machine.

    A path of this machine that looks like the other is given as ``./a:b``.
    """
    found = _IN_SESSION.fullmatch(text)
    return Place(None, text) if found is None else Place(found[1], found[2] or ".")


def session_place(text: str, op: OpName) -> Place:
    """A path in a session; a session alone stands for its workspace.

    Raises:
        ArgumentError: it is a path of this machine.
    """
    found = place_of(text)
    if found.session is not None:
        return found
    if _IN_SESSION.fullmatch(f"{text}:") is None:
        raise ArgumentError(
            f"{text}: name a session and a path in it, as in web:src",
            op=op,
            argument="SESSION:PATH",
            value=text,
        )
    return Place(text, ".")
