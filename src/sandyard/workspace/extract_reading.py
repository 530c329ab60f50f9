"""Who reads what is restored: this program, also where the thread acts as the workspace's owner."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Protocol

from sandyard.workspace.acting import acting_as
from sandyard.workspace.root import Owner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from sandyard.archive.model import Member, Piece

__all__ = ["Reader", "read_as_program"]


class Reader(Protocol):
    """What members are read from, if it becomes this program by itself.

    Attributes:
        as_program: acts as this program; whoever acts as somebody else sets it. It is entered only
            where something is opened.
    """

    as_program: Callable[[], AbstractContextManager[None]]


def read_as_program(members: Iterator[Member], owner: Owner | None) -> Iterator[Member]:
    """Have members read as this program, though the thread acts as another."""
    if owner is None:
        yield from members
        return
    back = Owner(os.geteuid(), os.getegid())
    while True:
        with acting_as(back):
            member = next(members, None)
        if member is None:
            return
        member.pieces = partial(_pieces_as, back, member.pieces)
        yield member


def _pieces_as(back: Owner, pieces: Callable[[], Iterator[Piece]]) -> Iterator[Piece]:
    with acting_as(back):
        source = pieces()
    while True:
        with acting_as(back):
            piece = next(source, None)
        if piece is None:
            return
        yield piece
