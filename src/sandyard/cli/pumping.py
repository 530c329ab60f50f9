"""Owns the way of bytes between our standard streams and a command: pumped, never handed over.

Our descriptors stay as we found them. They are shared with whoever started us, so they are not
made non-blocking; a blocked read or write is waited for where it holds up nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import queue
import threading
from typing import Final, Self

from sandyard.limits import COPY_CHUNK_BYTES, PIPE_READ_BYTES

__all__ = ["Inlet", "Outlet"]

_NOTHING_THERE: Final = frozenset({errno.EIO, errno.EBADF})
"""What a read says where there is no input for us: a terminal that has gone or belongs to another
job, a descriptor that was opened for writing only."""


class Inlet:
    """A descriptor as a source of bytes, read only when more is asked for.

    It is watched by the loop, so that waiting for it blocks nothing and can be given up. Files and
    devices that can't be watched answer at once, and are read directly.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __aiter__(self) -> Self:
        """Iterate over the input."""
        return self

    async def __anext__(self) -> bytes:
        """Wait for the next bytes."""
        try:
            await self._wait_readable()
            data = os.read(self._fd, PIPE_READ_BYTES)
        except OSError as error:
            if error.errno not in _NOTHING_THERE:
                raise
            data = b""
        if not data:
            raise StopAsyncIteration
        return data

    async def _wait_readable(self) -> None:
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        try:
            loop.add_reader(self._fd, _settle, ready, None)
        except PermissionError:  # epoll's answer for what can't be watched
            await asyncio.sleep(0)
            return
        try:
            await ready
        finally:
            loop.remove_reader(self._fd)


class Outlet:
    """A descriptor to write to, from a thread of its own.

    The thread is a daemon: a write that nobody takes must not keep the program from ending.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._work: queue.SimpleQueue[tuple[bytes, asyncio.Future[None]]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    async def write(self, data: bytes) -> None:
        """Write all of ``data`` and wait for that.

        Raises:
            BrokenPipeError: nobody reads any more.
            OSError: it can't be written.
        """
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, daemon=True)
            self._thread.start()
        written = asyncio.get_running_loop().create_future()
        self._work.put((data, written))
        await written

    def _serve(self) -> None:
        while True:
            data, written = self._work.get()
            failure: OSError | None = None
            try:
                rest = memoryview(data)
                while rest:
                    rest = rest[os.write(self._fd, rest[:COPY_CHUNK_BYTES]) :]
            except OSError as error:
                failure = error
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                written.get_loop().call_soon_threadsafe(_settle, written, failure)


def _settle(waiter: asyncio.Future[None], failure: OSError | None) -> None:
    if waiter.done():
        return
    if failure is None:
        waiter.set_result(None)
    else:
        waiter.set_exception(failure)
