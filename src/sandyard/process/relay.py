"""Owns a relay: a pipe of ours that busy output is moved into, and goes on from.

What lies in a pipe can be moved to another one without a copy. Who copies from a command's own pipe keeps
its writer out of it meanwhile, and has the bytes brought from its processor; what is moved on to a file, or
dropped, need not pass through our memory at all.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os

__all__ = ["Relay"]


class Relay:
    """A pipe of which both ends are ours; close it.

    Args:
        size: what fits into it, if the kernel grants that.

    Attributes:
        out: the end that is read from, which does not block.

    Raises:
        OSError: there is no descriptor left, or this system moves nothing between pipes.
    """

    __slots__ = ("_into", "out")

    def __init__(self, size: int) -> None:
        if not hasattr(os, "splice"):
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        self.out, self._into = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        with contextlib.suppress(OSError):  # EPERM: the user's pages for pipes are used up
            fcntl.fcntl(self.out, fcntl.F_SETPIPE_SZ, size)

    @property
    def size(self) -> int:
        """What fits into it, in whole pages."""
        return fcntl.fcntl(self.out, fcntl.F_GETPIPE_SZ)

    def fill(self, fd: int, size: int) -> int:
        """Moves into it what is in a pipe; returns how much, 0 at the end.

        Raises:
            BlockingIOError: if nothing is there, or there is no room for it.
        """
        return os.splice(fd, self._into, size, flags=os.SPLICE_F_NONBLOCK)

    def write(self, file: int, size: int, at: int) -> None:
        """Writes the next bytes in it to a file (blocking).

        Raises:
            OSError: that can't be done.
        """
        while size:
            try:
                wrote = os.splice(self.out, file, size, offset_dst=at)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                wrote = os.pwrite(
                    file, os.read(self.out, size), at
                )  # not every filesystem does that
            if not wrote:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            size -= wrote
            at += wrote

    def close(self) -> None:
        """Closes it, with what is still in it."""
        os.close(self.out)
        os.close(self._into)
