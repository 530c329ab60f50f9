"""Owns a terminal's master: the host's side of it, which is read and written without ever blocking.

The descriptor came from the sandbox. The other side of it is whatever runs there, which may write
what it likes and read as little as it likes.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import struct
import termios
from collections.abc import Callable

from sandyard.limits import (
    TERMINAL_BATCH_BYTES,
    TERMINAL_BULK_BYTES,
    TERMINAL_DRAIN_BYTES,
    TERMINAL_READ_BYTES,
    TERMINAL_TURN_BYTES,
    TERMINAL_WRITE_BYTES,
)
from sandyard.process.latch import wake
from sandyard.process.pipes import as_bytes

__all__ = ["Master"]

_CONTROL_CHARACTERS = 6
"""Where tcgetattr(3) of Python's termios has them."""


class Master:
    """The master of one terminal.

    Args:
        fd: its descriptor, which is ours from now on; it does not block.
        take: is given each chunk of output.
    """

    __slots__ = ("_fd", "_loop", "_reading", "_take", "_turn", "_writable")

    def __init__(
        self, fd: int, take: Callable[[bytes], None], loop: asyncio.AbstractEventLoop
    ) -> None:
        self._fd = fd
        self._take = take
        self._loop = loop
        self._reading = False
        self._turn: asyncio.Lock | None = None  # one writer at a time; made by the first
        self._writable: asyncio.Future[None] | None = None

    @property
    def open(self) -> bool:
        """Whether it is not closed."""
        return self._fd >= 0

    def resume(self) -> None:
        """Reads whenever there is something to read.

        Raises:
            OSError: if the loop can't watch one more descriptor.
        """
        if self._fd >= 0 and not self._reading:
            self._loop.add_reader(self._fd, self._read_turn)
            self._reading = True

    def pause(self) -> None:
        """Leaves what comes in the kernel, so that the program waits in its write."""
        if self._reading:
            if not self._loop.is_closed():
                self._loop.remove_reader(self._fd)
            self._reading = False

    def drain(self) -> None:
        """Reads what was written until now, without waiting for more."""
        room = TERMINAL_DRAIN_BYTES
        while room > 0 and (chunk := self._read()):
            room -= len(chunk)
            self._take(chunk)

    async def write(self, data: bytes | bytearray | memoryview) -> int:
        """Writes in its turn, waiting for the program to read where it must.

        Returns:
            How many bytes the kernel has taken: all, unless the terminal was closed meanwhile.

        Raises:
            OSError: if the loop can't watch one more descriptor.
        """
        whole = as_bytes(data)
        written = 0
        if self._turn is None:
            self._turn = asyncio.Lock()
        async with self._turn:
            while written < len(whole) and self._fd >= 0:
                try:
                    written += os.write(self._fd, whole[written : written + TERMINAL_WRITE_BYTES])
                except BlockingIOError:
                    await self._wait_writable()
                except OSError:  # EIO: nobody is left to read it
                    break
                else:
                    if written < len(whole):
                        await asyncio.sleep(0)  # a program that reads fast is not alone here
        return written

    def resize(self, rows: int, columns: int) -> None:
        """Sets the size of the window; the kernel tells the programs by SIGWINCH.

        Raises:
            OSError: if the terminal is gone.
        """
        size = struct.pack("HHHH", rows, columns, 0, 0)
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, size)

    def end_character(self) -> bytes:
        """The character that ends the input now; empty where the program has switched it off.

        Raises:
            OSError: if the terminal is gone.
        """
        try:
            modes = termios.tcgetattr(self._fd)
        except termios.error as error:
            raise OSError(*error.args) from error
        character = modes[_CONTROL_CHARACTERS][termios.VEOF]
        return character if isinstance(character, bytes) and character != b"\0" else b""

    def close(self) -> None:
        """Closes it: what still has the other side open reads its end, and is told by SIGHUP."""
        self.pause()
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        if self._writable is not None:
            self._wake(fd)
        os.close(fd)

    def _read_turn(self) -> None:
        # What comes after a short read can wait for the loop's next turn, and a look for it costs
        # more than a key's echo takes.
        turn, size = 0, TERMINAL_BATCH_BYTES
        while turn < TERMINAL_TURN_BYTES and self._reading and size >= TERMINAL_BATCH_BYTES:
            chunk = self._read()
            size = len(chunk)
            turn += size
            if chunk:
                self._take(chunk)

    def _read(self) -> bytes:
        """Reads what is there, up to a batch; nothing at the end, or where nothing is there."""
        if self._fd < 0:
            return b""
        try:
            chunk = os.read(self._fd, TERMINAL_READ_BYTES)
        except BlockingIOError:
            return b""
        except OSError:  # EIO: nobody has the other side open, and nobody will
            chunk = b""
        if not chunk:
            self.pause()
        return self._batch(chunk) if len(chunk) >= TERMINAL_BULK_BYTES else chunk

    def _batch(self, first: bytes) -> bytes:
        """Reads on after a chunk, as long as something is there; returns all of it together."""
        batch = bytearray(TERMINAL_BATCH_BYTES)
        end = len(first)
        batch[:end] = first
        with memoryview(batch) as room:
            try:
                while end < TERMINAL_BATCH_BYTES and (got := os.readv(self._fd, [room[end:]])):
                    end += got
            except OSError:  # nothing is there, or nobody: the next read tells which
                pass
            return bytes(room[:end])

    async def _wait_writable(self) -> None:
        """Waits until the terminal takes something, or is closed."""
        fd, waiter = self._fd, self._loop.create_future()
        self._loop.add_writer(fd, self._wake, fd)
        self._writable = waiter
        try:
            await waiter
        finally:
            if self._writable is waiter:  # cancelled
                self._wake(fd)

    def _wake(self, fd: int) -> None:
        waiter, self._writable = self._writable, None
        if not self._loop.is_closed():
            self._loop.remove_writer(fd)
        if waiter is not None:
            wake(waiter)
