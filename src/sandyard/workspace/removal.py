"""Removal of whole trees by descriptor: no link is followed, no mount entered, no depth too deep."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import Final

from sandyard.workspace.opener import open_child

__all__ = ["empty_directory", "remove_tree"]

_ALL_RIGHTS: Final = 0o700
_NO_LINK: Final = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY: Final = os.O_RDONLY | _NO_LINK


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


def remove_tree(parent: int, name: str) -> list[OSError]:
    """Remove a directory and all in it.

    Args:
        parent: descriptor of the directory that holds it (O_PATH is enough).
        name: its name there; not a symlink.

    Returns:
        What could not be removed; empty when all is gone.
    """
    try:
        top = _open_writable(parent, name)
    except OSError as error:
        return [] if error.errno == errno.ENOENT else [error]
    try:
        failures = empty_directory(top)
    finally:
        os.close(top)
    if not failures:
        _attempt_rmdir(parent, name, failures)
    return failures


def empty_directory(top: int) -> list[OSError]:
    """Remove all that is in a directory.

    Only one descriptor is open at a time, however deep the tree: the way back up is ``..``, and the
    directory found there must be the one that the way down came from. If somebody moved a
    directory away meanwhile, the removal stops there.

    Args:
        top: its descriptor, open for reading; it stays the caller's.

    Returns:
        What could not be removed; empty when all is gone.
    """
    failures: list[OSError] = []
    here = os.open(".", _DIRECTORY, dir_fd=top)
    try:
        levels = [_entered(here, "", failures)]
        while levels:
            level = levels[-1]
            if level.todo:
                name = level.todo.pop()
                deeper = _descend(here, name, failures)
                if deeper >= 0:
                    os.close(here)
                    here = deeper
                    levels.append(_entered(here, name, failures))
                continue
            levels.pop()
            if levels:
                above = _open_above(here, levels[-1].identity)
                os.close(here)
                here = above
                _attempt_rmdir(here, level.name, failures)
    except OSError as error:
        failures.append(error)
    finally:
        if here >= 0:
            os.close(here)
    return failures


def _entered(directory: int, name: str, failures: list[OSError]) -> _Level:
    """Remove all but the directories in a directory, and list those."""
    facts = os.fstat(directory)
    if facts.st_mode & _ALL_RIGHTS != _ALL_RIGHTS:
        try:
            os.fchmod(directory, _ALL_RIGHTS)
        except OSError as error:
            failures.append(error)
    directories: list[str] = []
    with os.scandir(directory) as entries:
        for entry in list(entries):  # all at once: what is removed while listing may hide others
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
        _grant_rights(directory, name)
    return open_child(directory, name)


def _grant_rights(directory: int, name: str) -> None:
    """Give ourselves all rights to a directory of ours."""
    if os.chmod in os.supports_follow_symlinks:
        os.chmod(name, _ALL_RIGHTS, dir_fd=directory, follow_symlinks=False)
        return
    handle = os.open(name, os.O_PATH | _NO_LINK, dir_fd=directory)
    try:
        # fchmod(2) refuses an O_PATH descriptor; its magic link is the way round (open(2)).
        os.chmod(f"/proc/self/fd/{handle}", _ALL_RIGHTS)
    finally:
        os.close(handle)


def _open_above(directory: int, expected: tuple[int, int]) -> int:
    """Open the directory above, if it is still the one that the way down came from."""
    above = os.open("..", _DIRECTORY, dir_fd=directory)
    facts = os.fstat(above)
    if (facts.st_dev, facts.st_ino) != expected:
        os.close(above)
        raise OSError(errno.ESTALE, "a directory was moved away while it was being removed")
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
