"""Gives a tree of ours to somebody: for where the kernel can't show its files as somebody else's."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from sandyard.errors import WorkspaceStartError
from sandyard.workspace.extract_tree import Directories

if TYPE_CHECKING:
    from sandyard.archive.naming import Path
    from sandyard.workspace.root import Owner, WorkspaceRoot

__all__ = ["give_below", "give_tree"]

_OPEN: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def give_tree(root: WorkspaceRoot, owner: Owner) -> None:
    """Give a directory that the library made, and all in it, to ``owner``. Blocks.

    Called by root, while no command runs. Symlinks are given, not followed; other file systems are
    left alone.

    Raises:
        WorkspaceStartError: something can't be given.
    """
    try:
        give_below(root.fd, root.inode.device, owner)
        os.fchown(root.fd, owner.uid, owner.gid)
    except OSError as error:
        raise WorkspaceStartError(path=root.path, cause=error) from error


def give_below(top: int, device: int, owner: Owner) -> None:
    """Give all that is in a directory, one directory after the other, of which few are open at a time.

    Args:
        top: its descriptor.
        device: the file system to stay on.
        owner: whom to give it to; -1 leaves a user or a group as it is (chown(2)).
    """
    waiting: list[Path] = [()]
    with Directories(top) as tree:
        while waiting:
            path = waiting.pop()
            directory = os.open(".", _OPEN, dir_fd=tree.at(path))
            try:
                waiting += [(*path, name) for name in _given(directory, device, owner)]
            finally:
                os.close(directory)


def _given(directory: int, device: int, owner: Owner) -> list[bytes]:
    """Give what is in a directory; return the names of directories in it."""
    inner: list[bytes] = []
    for text in os.listdir(directory):
        name = os.fsencode(text)
        with suppress(FileNotFoundError):
            facts = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if facts.st_dev != device:
                continue
            os.chown(name, owner.uid, owner.gid, dir_fd=directory, follow_symlinks=False)
            if stat.S_ISDIR(facts.st_mode):
                inner.append(name)
    return inner
