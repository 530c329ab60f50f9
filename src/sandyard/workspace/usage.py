"""How much a tree takes on disk: no link is followed, no mount entered, no depth too deep."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from sandyard.workspace.kernel import closed_on_error, open_child

if TYPE_CHECKING:
    import threading

__all__ = ["measure_usage"]

_BLOCK_BYTES: Final = 512
"""What ``st_blocks`` counts in, whatever the file system's own blocks are (stat(2))."""

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(slots=True)
class _Look:
    """One look under way.

    Attributes:
        stopped: set when nobody wants the answer any more.
        total: bytes so far.
        linked: files with more than one name that were counted, by device and inode.
    """

    stopped: threading.Event
    total: int = 0
    linked: set[tuple[int, int]] = field(default_factory=set)


@dataclass(slots=True)
class _Level:
    """A directory on the way down.

    Attributes:
        identity: its device and inode, checked when the way leads back up to it.
        todo: directories in it that are still to be counted.
    """

    identity: tuple[int, int]
    todo: list[str]


def measure_usage(top: int, stopped: threading.Event) -> int:
    """Count the bytes that a directory and all in it take on disk, each file once.

    What can't be read, and what changes while it is counted, is counted as far as it goes. Only one
    descriptor is open at a time, however deep the tree.

    Args:
        top: descriptor of the directory, open for reading; it stays the caller's.
        stopped: gives up, with what was counted so far, once this is set.
    """
    look = _Look(stopped)
    here = os.open(".", _DIRECTORY, dir_fd=top)
    try:
        levels = [_entered(here, look)]
        while levels and not stopped.is_set():
            if not levels[-1].todo:
                levels.pop()
                if levels:
                    above = _open_above(here, levels[-1].identity)
                    if above < 0:
                        break  # a directory was moved away: what is above is counted next time
                    os.close(here)
                    here = above
                continue
            with suppress(OSError):
                deeper = open_child(here, levels[-1].todo.pop())
                with closed_on_error(deeper):
                    level = _entered(deeper, look)
                os.close(here)
                here = deeper
                levels.append(level)
    finally:
        os.close(here)
    return look.total


def _entered(directory: int, look: _Look) -> _Level:
    """Count a directory's own files, and list the directories in it."""
    facts = os.fstat(directory)
    look.total += facts.st_blocks * _BLOCK_BYTES
    todo: list[str] = []
    with suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            if look.stopped.is_set():
                break
            if entry.is_dir(follow_symlinks=False):
                todo.append(entry.name)
                continue
            with suppress(OSError):
                _add_file(entry.stat(follow_symlinks=False), look)
    return _Level((facts.st_dev, facts.st_ino), todo)


def _add_file(facts: os.stat_result, look: _Look) -> None:
    if facts.st_nlink > 1:
        identity = (facts.st_dev, facts.st_ino)
        if identity in look.linked:
            return
        look.linked.add(identity)
    look.total += facts.st_blocks * _BLOCK_BYTES


def _open_above(directory: int, expected: tuple[int, int]) -> int:
    """Open the directory above, or return -1 if it is not the one that the way down came from."""
    try:
        above = os.open("..", _DIRECTORY, dir_fd=directory)
    except OSError:
        return -1
    with closed_on_error(above):
        facts = os.fstat(above)
    if (facts.st_dev, facts.st_ino) == expected:
        return above
    os.close(above)
    return -1
