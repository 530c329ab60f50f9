"""Disks that break: the program ends, the disk is full, or the order of changes is checked."""

from __future__ import annotations

import errno
import os
import signal
from typing import TYPE_CHECKING

from sandyard.snapshot.disk import Disk

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Breaking", "Orderly", "full", "killed"]


def killed() -> None:
    """End this program as the kernel does when memory is short."""
    os.kill(os.getpid(), signal.SIGKILL)


def full() -> None:
    """Refuse as a full disk does."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Breaking(Disk):
    """Breaks before its n-th change, or after one half of it if it is a write.

    Args:
        change: which one, from 0.
        how: what happens then.
        removes: True counts removals too; False lets them through, as a full disk does.
    """

    def __init__(self, change: int, how: Callable[[], None], *, removes: bool = True) -> None:
        self._left = change
        self._how = how
        self._removes = removes
        self.reached = False

    def _step(self) -> bool:
        self._left -= 1
        return self._left == -1

    def _break(self) -> None:
        self.reached = True
        self._how()

    def make(self, directory: int, name: str) -> int:
        if self._step():
            self._break()
        return super().make(directory, name)

    def make_directory(self, directory: int, name: str) -> None:
        if self._step():
            self._break()
        super().make_directory(directory, name)

    def write(self, file: int, data: bytes | bytearray | memoryview, at: int) -> None:
        if self._step():
            super().write(file, memoryview(data)[: len(data) // 2], at)
            self._break()
        super().write(file, data, at)

    def cut(self, file: int, size: int) -> None:
        if self._step():
            self._break()
        super().cut(file, size)

    def sync(self, descriptor: int) -> None:
        if self._step():
            self._break()
        super().sync(descriptor)

    def publish(self, directory: int, name: str, new: str) -> None:
        if self._step():
            self._break()
        super().publish(directory, name, new)

    def remove(self, directory: int, name: str) -> None:
        if self._removes and self._step():
            self._break()
        super().remove(directory, name)


class Orderly(Disk):
    """Notes what a loss of power would take, and refuses to publish such a file.

    Attributes:
        unsafe: directories in which a name was given that might not survive.
    """

    def __init__(self) -> None:
        self._dirty: set[tuple[int, int]] = set()
        self.unsafe: set[tuple[int, int]] = set()

    def write(self, file: int, data: bytes | bytearray | memoryview, at: int) -> None:
        super().write(file, data, at)
        self._dirty.add(_inode(os.fstat(file)))

    def cut(self, file: int, size: int) -> None:
        super().cut(file, size)
        self._dirty.add(_inode(os.fstat(file)))

    def sync(self, descriptor: int) -> None:
        super().sync(descriptor)
        inode = _inode(os.fstat(descriptor))
        self._dirty.discard(inode)
        self.unsafe.discard(inode)

    def make_directory(self, directory: int, name: str) -> None:
        known = name in os.listdir(directory)
        super().make_directory(directory, name)
        if not known:
            self.unsafe.add(_inode(os.fstat(directory)))

    def publish(self, directory: int, name: str, new: str) -> None:
        facts = os.stat(name, dir_fd=directory)
        in_index = new.endswith(".index")  # which may be lost
        assert in_index or _inode(facts) not in self._dirty
        super().publish(directory, name, new)
        if not in_index:
            self.unsafe.add(_inode(os.fstat(directory)))


def _inode(facts: os.stat_result) -> tuple[int, int]:
    return facts.st_dev, facts.st_ino
