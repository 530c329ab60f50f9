"""The way through a tree by descriptor: no link is followed, nothing closed entered, none too deep."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from sandyard.limits import DESCENT_LEVELS
from sandyard.workspace.kernel import closed_on_error, open_child
from sandyard.workspace.names import Names
from sandyard.workspace.ward import ClosedError, Ward

__all__ = ["Level", "descend", "refuse_rules"]

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_TROUBLE: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO})
"""What a machine in trouble says, whatever is opened."""


class Level(NamedTuple):
    """One directory of a tree.

    Attributes:
        descriptor: its own, valid until the next one is asked for.
        names: the way to it from the top.
        entries: what is in it, sorted by name.
    """

    descriptor: int
    names: Names
    entries: list[os.DirEntry[str]]


@dataclass(slots=True)
class _Step:
    """A directory on the way down: what it is, to be found again, and what is still to be entered."""

    identity: tuple[int, int]
    todo: list[str]


def descend(
    top: int,
    ward: Ward,
    *,
    enters: Callable[[Names], bool] | None = None,
) -> Iterator[Level]:
    """Go through a directory and what lies beneath it, each before what it holds.

    Only one descriptor is open at a time, however deep the tree: the way back up is ``..``, and the
    directory found there must be the one that the way down came from. What can't be entered is left
    out.

    Args:
        top: descriptor of the directory, open for reading; it stays the caller's.
        ward: what may not be entered.
        enters: tells of a directory, by its names, whether to go into it (default: always).

    Raises:
        OSError: ESTALE if a directory was moved away meanwhile, EAGAIN if the tree is nested ever
            deeper; EMFILE, ENFILE or ENOMEM where there is no room to go on; EIO if the disk fails.
    """
    here = os.open(".", _DIRECTORY, dir_fd=top)
    names: list[str] = []
    way: list[_Step] = []
    try:
        entered = True
        while True:
            if entered:
                entries = _listed(here)
                yield Level(here, tuple(names), entries)
                inner = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
                if enters is not None:
                    inner = [name for name in inner if enters((*names, name))]
                facts = os.fstat(here)
                way.append(_Step((facts.st_dev, facts.st_ino), inner[::-1]))
            if way[-1].todo:
                deeper = _opened(here, way[-1].todo.pop(), ward, names)
                entered = deeper >= 0
                if entered:
                    os.close(here)
                    here = deeper
                    if len(way) > DESCENT_LEVELS:
                        raise OSError(errno.EAGAIN, "it is nested ever deeper")
                continue
            way.pop()
            if not way:
                return
            above = _above(here, way[-1].identity)
            os.close(here)
            here, entered = above, False
            names.pop()
    finally:
        os.close(here)


def _listed(directory: int) -> list[os.DirEntry[str]]:
    with os.scandir(directory) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def _opened(directory: int, name: str, ward: Ward, names: list[str]) -> int:
    """Go into a directory, or return -1 where that is left out."""
    try:
        deeper = open_child(directory, name)
    except OSError as error:
        if error.errno in _TROUBLE:  # there is more than we could tell
            raise
        return -1
    try:
        with closed_on_error(deeper):
            ward.admit(deeper)
    except ClosedError:
        return -1
    names.append(name)
    return deeper


def _above(directory: int, expected: tuple[int, int]) -> int:
    above = os.open("..", _DIRECTORY, dir_fd=directory)
    with closed_on_error(above):
        facts = os.fstat(above)
        if (facts.st_dev, facts.st_ino) != expected:
            raise OSError(errno.ESTALE, "a directory was moved away while it was looked through")
    return above


def refuse_rules(parent: int, name: str, ward: Ward) -> None:
    """Refuse a tree in which something has a rule of its own, before anything of it is changed.

    Args:
        parent: descriptor of the directory that holds it.
        name: its name there; a file is as well.
        ward: the rules.

    Raises:
        ClosedError: something has.
        OSError: the tree changes while it is looked through.
    """
    if ward.idle:
        return
    try:
        top = open_child(parent, name)
    except OSError:  # no directory; or one that nobody may read, in which the removal looks again
        return
    try:
        for level in descend(top, ward):
            for entry in level.entries:
                if entry.name in ward.names:
                    ward.check_itself(level.descriptor, entry.name)
    finally:
        os.close(top)
