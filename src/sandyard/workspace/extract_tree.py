"""A tree that is written or published: its directories by descriptor, and renames between two."""

from __future__ import annotations

import ctypes
import errno
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Self

from sandyard.limits import OPEN_DIRECTORIES
from sandyard.workspace.kernel import PATH_ONLY, open_child

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from sandyard.archive.naming import Path

__all__ = ["ANYHOW", "EXCHANGE", "KEEP", "Directories", "rename"]


class Directories:
    """Opens directories of one tree, never through a symlink or into a mount; keeps the last ones open.

    It is a context manager; leaving it closes them.

    Args:
        top: descriptor of the tree's own directory; it stays the caller's.
        admit: raises for a directory that may not be entered (default: all may).
        readable: True opens them for reading, so that they can be listed, instead of with O_PATH.
    """

    def __init__(
        self, top: int, admit: Callable[[int], None] | None = None, *, readable: bool = False
    ) -> None:
        self._top = top
        self._admit = admit
        self._access = os.O_RDONLY if readable else PATH_ONLY
        self._held: dict[Path, int] = {}

    def at(self, path: Path, *, make: bool = False) -> int:
        """A directory's descriptor, valid until the next call.

        Args:
            path: of the directory.
            make: True makes what is missing of it.

        Raises:
            OSError: ENOTDIR if a part of the path is something else, EBUSY if something is mounted
                on it, what ``admit`` raises, or else.
        """
        if not path:
            return self._top
        held = self._held.get(path)
        if held is not None:
            return held
        depth = len(path) - 1
        while depth and path[:depth] not in self._held:
            depth -= 1
        here = self._held[path[:depth]] if depth else self._top
        for end in range(depth + 1, len(path) + 1):
            name = path[end - 1]
            try:
                here = self._keep(path[:end], open_child(here, name, self._access))
            except FileNotFoundError:
                if not make:
                    raise
                with suppress(FileExistsError):
                    os.mkdir(name, dir_fd=here)
                here = self._keep(path[:end], open_child(here, name, self._access))
        return here

    def _keep(self, path: Path, descriptor: int) -> int:
        if self._admit is not None:
            try:
                self._admit(descriptor)
            except BaseException:
                os.close(descriptor)
                raise
        if len(self._held) >= OPEN_DIRECTORIES:
            os.close(self._held.pop(next(iter(self._held))))
        self._held[path] = descriptor
        return descriptor

    def close(self) -> None:
        """Close what is open; doing it again does nothing."""
        while self._held:
            os.close(self._held.popitem()[1])

    def __enter__(self) -> Self:
        """Return this object."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close what is open."""
        self.close()


# --- renames ----------------------------------------------------------------------------------

_RENAMEAT2: Final = {"x86_64": 316, "aarch64": 276}
ANYHOW: Final = 0
KEEP: Final = 1
"""Fail where something has the new name (RENAME_NOREPLACE)."""

EXCHANGE: Final = 2
"""Give each of two things the name of the other (RENAME_EXCHANGE)."""

_syscall = ctypes.CDLL(None, use_errno=True).syscall


def rename(directory: int, name: bytes, to: int, new: bytes, how: int = ANYHOW) -> None:
    """Rename something from one directory into another.

    Args:
        directory: where it is.
        name: its name there.
        to: where it comes to stand.
        new: its name there.
        how: ``ANYHOW`` (default), ``KEEP`` or ``EXCHANGE``.

    Raises:
        OSError: as renameat2(2); ENOSYS where the kernel or the file system has no such way.
    """
    number = _RENAMEAT2.get(os.uname().machine) if how else None
    if not how:
        os.rename(name, new, src_dir_fd=directory, dst_dir_fd=to)
        return
    if number is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if _syscall(number, directory, name, to, new, how) == 0:
        return
    error = ctypes.get_errno()
    if error == errno.EINVAL:  # the file system does not know how
        error = errno.ENOSYS
    raise OSError(error, os.strerror(error), os.fsdecode(new))
