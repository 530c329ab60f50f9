"""Removal of whole trees by descriptor: no link is followed, no mount entered, no depth too deep."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import Final

from sandyard.limits import DESCENT_LEVELS
from sandyard.workspace.kernel import chmod_child, open_child
from sandyard.workspace.ward import NO_RULES, Ward

__all__ = ["empty_directory", "remove_tree"]

_ALL_RIGHTS: Final = 0o700
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(slots=True)
class _Level:
    """A directory on the way down.

    Attributes:
        name: its name in the directory above; empty for the top.
        identity: its device and inode, checked when the way leads back up to it.
        todo: directories in it that are still to be removed.
    """

    name: str
    identity: tuple[int, int]
    todo: list[str]


def remove_tree(parent: int, name: str, ward: Ward = NO_RULES) -> list[OSError]:
    """Remove a directory and all in it.

    Args:
        parent: descriptor of the directory that holds it (O_PATH is enough).
        name: its name there; not a symlink.
        ward: what of it must stay, which the way down looks at once more: somebody may have moved
            such a thing into the tree since it was looked through (default: nothing).

    Returns:
        What could not be removed; empty when all is gone.
    """
    try:
        top = _open_writable(parent, name)
    except OSError as error:
        return [] if error.errno == errno.ENOENT else [error]
    try:
        failures = empty_directory(top, ward, levels=DESCENT_LEVELS)
    finally:
        os.close(top)
    if not failures:
        _attempt_rmdir(parent, name, failures)
    return failures


def empty_directory(top: int, ward: Ward = NO_RULES, *, levels: int | None = None) -> list[OSError]:
    """Remove all that is in a directory.

    Only one descriptor is open at a time, however deep the tree: the way back up is ``..``, and the
    directory found there must be the one that the way down came from. If somebody moved a
    directory away meanwhile, the removal stops there.

    Args:
        top: its descriptor, open for reading; it stays the caller's.
        ward: what of it must stay (default: nothing).
        levels: how deep to go at most; None (default) goes to the ground, and is for directories
            in which nobody works any more.

    Returns:
        What could not be removed; empty when all is gone.
    """
    failures: list[OSError] = []
    here = os.open(".", _DIRECTORY, dir_fd=top)
    try:
        way = [_entered(here, "", ward, failures)]
        while way:
            level = way[-1]
            if level.todo:
                name = level.todo.pop()
                if len(way) == levels:
                    raise OSError(errno.EAGAIN, "it is nested ever deeper while it is removed")
                deeper = _descend(here, name, failures)
                if deeper >= 0:
                    os.close(here)
                    here = deeper
                    way.append(_entered(here, name, ward, failures))
                continue
            way.pop()
            if way:
                above = _open_above(here, way[-1].identity)
                os.close(here)
                here = above
                _attempt_rmdir(here, level.name, failures)
    except OSError as error:
        failures.append(error)
    finally:
        if here >= 0:
            os.close(here)
    return failures


def _entered(directory: int, name: str, ward: Ward, failures: list[OSError]) -> _Level:
    """Remove all but the directories in a directory, and list those.

    Raises:
        ClosedError: something in it must stay; then nothing of it is removed.
    """
    facts = os.fstat(directory)
    if facts.st_mode & _ALL_RIGHTS != _ALL_RIGHTS:
        try:
            os.fchmod(directory, _ALL_RIGHTS)
        except OSError as error:
            failures.append(error)
    directories: list[str] = []
    with os.scandir(directory) as entries:
        found = list(entries)  # all at once: what is removed while listing may hide others
        for entry in found:
            if entry.name in ward.names:
                ward.check_itself(directory, entry.name)
        for entry in found:
            if entry.is_dir(follow_symlinks=False):
                directories.append(entry.name)
                continue
            _attempt_unlink(directory, entry.name, failures)
    return _Level(name, (facts.st_dev, facts.st_ino), directories)


def _descend(directory: int, name: str, failures: list[OSError]) -> int:
    """Open a directory to empty it, or return -1 where there is none or that can't be done."""
    try:
        return _open_writable(directory, name)
    except FileNotFoundError:
        pass
    except NotADirectoryError:  # somebody put something else there since it was listed
        _attempt_unlink(directory, name, failures)
    except OSError as error:
        failures.append(error)
    return -1


def _open_writable(directory: int, name: str) -> int:
    """Open a directory for reading; one without rights is given them first, if it is ours."""
    try:
        return open_child(directory, name)
    except PermissionError:
        chmod_child(directory, name, _ALL_RIGHTS)
    return open_child(directory, name)


def _open_above(directory: int, expected: tuple[int, int]) -> int:
    """Open the directory above, if it is still the one that the way down came from."""
    above = os.open("..", _DIRECTORY, dir_fd=directory)
    try:
        facts = os.fstat(above)
        if (facts.st_dev, facts.st_ino) != expected:
            raise OSError(errno.ESTALE, "a directory was moved away while it was being removed")
    except OSError:
        os.close(above)
        raise
    return above


def _attempt_unlink(directory: int, name: str, failures: list[OSError]) -> None:
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        pass
    except OSError as error:
        failures.append(error)


def _attempt_rmdir(directory: int, name: str, failures: list[OSError]) -> None:
    """Remove an emptied directory; one that still has something in it was reported before."""
    try:
        os.rmdir(name, dir_fd=directory)
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno != errno.ENOTEMPTY or not failures:
            failures.append(error)
