"""Disk: every change that a store makes on the file system, one method for each kind.

Nothing else in this room writes, so what a crash between any two changes leaves can be enumerated: a
test puts its own disk in this one's place, and stops or fails at each of them in turn.
"""

from __future__ import annotations

import ctypes
import os
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Disk", "meanwhile"]

_CREATE: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_MINE: Final = 0o600

_BEGIN: Final = 2
"""SYNC_FILE_RANGE_WRITE of linux/fs.h: begin to write what is not on its way yet."""

_libc = ctypes.CDLL(None)
_sync_file_range = getattr(_libc, "sync_file_range", None)
if _sync_file_range is not None:
    _sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


class Disk:
    """Changes files as a store does. All of it blocks."""

    def make(self, directory: int, name: str) -> int:
        """Make a file that is not there; return its descriptor, the caller's to close."""
        return os.open(name, _CREATE, _MINE, dir_fd=directory)

    def make_directory(self, directory: int, name: str) -> None:
        """Make a directory, unless it is there."""
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=directory)

    def write(self, file: int, data: bytes | bytearray | memoryview, at: int) -> None:
        """Write bytes at a place of a file, all of them."""
        left = memoryview(data)
        while left:
            done = os.pwrite(file, left, at)
            at, left = at + done, left[done:]

    def cut(self, file: int, size: int) -> None:
        """Cut a file to a size."""
        os.ftruncate(file, size)

    def hasten(self, file: int, at: int, size: int) -> None:
        """Have bytes that were written set out for the disk, so that ``sync`` waits for fewer.

        It is no change, and no promise: where there is no such way, nothing happens.
        """
        if _sync_file_range is not None:
            _sync_file_range(file, at, size, _BEGIN)

    def sync(self, descriptor: int) -> None:
        """Have a file's bytes, or a directory's names, survive a loss of power."""
        os.fsync(descriptor)

    def publish(self, directory: int, name: str, new: str) -> None:
        """Give a file its final name, in the place of what has it."""
        os.rename(name, new, src_dir_fd=directory, dst_dir_fd=directory)

    def remove(self, directory: int, name: str) -> None:
        """Remove a file; one that is gone is no error."""
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=directory)


@contextmanager
def meanwhile(work: Callable[[], None]) -> Iterator[None]:
    """Do something that waits for the disk in another thread while the block waits for it as well.

    Both have ended when this does; the block's error comes before that of the work.

    Args:
        work: what is done; where no thread can be started, before the block.
    """
    errors: list[BaseException] = []

    def done() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001  # a border: raised below
            errors.append(error)

    thread = threading.Thread(target=done, name="sandyard-sync")
    try:
        thread.start()
    except RuntimeError:
        work()
        yield
        return
    try:
        yield
    finally:
        thread.join()
    try:
        for error in errors:
            raise error
    finally:
        errors.clear()  # an error that is held by its own traceback is freed late
