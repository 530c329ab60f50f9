"""Gives a tree of ours to somebody: for where the kernel can't show its files as somebody else's."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from sandyard.errors import WorkspaceStartError

if TYPE_CHECKING:
    from sandyard.workspace.root import Owner, WorkspaceRoot

__all__ = ["give_tree"]

_OPEN: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def give_tree(root: WorkspaceRoot, owner: Owner) -> None:
    """Give a directory that the library made, and all in it, to ``owner``. Blocks.

    Called by root, while no command runs. Symlinks are given, not followed; other file systems are
    left alone.

    Raises:
        WorkspaceStartError: something can't be given.
    """
    try:
        _give_below(root.fd, root.inode.device, owner)
        os.fchown(root.fd, owner.uid, owner.gid)
    except OSError as error:
        raise WorkspaceStartError(path=root.path, cause=error) from error


def _give_below(top: int, device: int, owner: Owner) -> None:
    """One directory after the other, by descriptors: a deep tree takes no deep stack."""
    waiting = [os.open(".", _OPEN, dir_fd=top)]
    try:
        while waiting:
            directory = waiting.pop()
            try:
                _give_entries(directory, device, owner, waiting)
            finally:
                os.close(directory)
    finally:
        for directory in waiting:
            os.close(directory)


def _give_entries(directory: int, device: int, owner: Owner, waiting: list[int]) -> None:
    for name in os.listdir(directory):
        with suppress(FileNotFoundError):
            facts = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if facts.st_dev != device:
                continue
            if stat.S_ISDIR(facts.st_mode):
                waiting.append(os.open(name, _OPEN, dir_fd=directory))
            os.chown(name, owner.uid, owner.gid, dir_fd=directory, follow_symlinks=False)
