"""Owns a terminal's master: the host's side of it, which is read and written without ever blocking.

The descriptor came from the sandbox. The other side of it is whatever runs there, which may write
what it likes and read as little as it likes.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import select
import struct
import termios
import threading
import time
from collections.abc import Callable

from sandyard.limits import (
    TERMINAL_BATCH_BYTES,
    TERMINAL_BULK_BYTES,
    TERMINAL_DRAIN_BYTES,
    TERMINAL_FLOOD_AFTER,
    TERMINAL_FLOOD_BATCH_BYTES,
    TERMINAL_FLOOD_BYTES,
    TERMINAL_FLOOD_DELAY_S,
    TERMINAL_FLOOD_LOOK_S,
    TERMINAL_FLOOD_SILENCE_MS,
    TERMINAL_FLOODS,
    TERMINAL_READ_BYTES,
    TERMINAL_READ_DELAY_S,
    TERMINAL_TURN_BYTES,
    TERMINAL_WRITE_BYTES,
)
from sandyard.process.latch import wake
from sandyard.process.pipes import as_bytes
from sandyard.process.reading_thread import Places, ReadingThread

__all__ = ["TERMINAL_FLOOD_PLACES", "Flood", "Master"]

_CONTROL_CHARACTERS = 6
"""Where tcgetattr(3) of Python's termios has them."""

TERMINAL_FLOOD_PLACES = Places(TERMINAL_FLOODS)


class Flood(ReadingThread):
    """A thread that reads a terminal for as long as its program prints without a pause.

    It reads under a lock, and never waits while it has that: whoever stops it gets all that it has
    read, in order, and may read what follows at once.

    Args:
        master: the terminal's master, which does not block.
        tell: called on the loop, with this, when there is something to take, and when it is over.
    """

    __slots__ = ("_fd", "_filled", "_room", "_tell", "_told", "_view", "over")

    def __init__(
        self, master: int, tell: Callable[[Flood], None], loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__(TERMINAL_FLOOD_PLACES, loop)
        self._view = memoryview(bytearray(TERMINAL_FLOOD_BYTES))
        self._filled = 0  # of that, with what is read and not taken
        self._room = threading.Event()  # set when something is taken
        self._told = False
        self._tell = tell
        self.over = False
        self._fd = os.dup(master)  # which stays what it is when the terminal is closed

    @classmethod
    def begin(
        cls, master: int, tell: Callable[[Flood], None], loop: asyncio.AbstractEventLoop
    ) -> Flood | None:
        """Starts one; None where the loop has to read, since there is no room for one more thread."""
        if not TERMINAL_FLOOD_PLACES.take():
            return None
        try:
            flood = cls(master, tell, loop)
        except (OSError, MemoryError):  # a thread would be faster, no more
            TERMINAL_FLOOD_PLACES.give()
            return None
        return flood if flood.start() else None

    def take(self, *, last: bool = False) -> bytes:
        """What it has read; ``last`` lets it read nothing more."""
        with self._lock:
            self.over = self.over or last
            data = bytes(self._view[: self._filled])
            self._filled, self._told = 0, False
        self._room.set()
        return data

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        since = time.monotonic()
        try:
            # The kernel first passes on what has come when it is asked for that, but not when it is
            # polled: so nearly all reads find something.
            while (got := self._read()) is not None:
                if not got and not poll.poll(TERMINAL_FLOOD_SILENCE_MS):
                    break
                if self._is_due(since):
                    since = time.monotonic()
                    self._call()
                if self._filled == TERMINAL_FLOOD_BYTES and not self._wait_for_room():
                    break
        except RuntimeError:  # the loop is closed
            pass

    def _release(self) -> None:
        os.close(self._fd)
        self.over = True

    def _finish(self) -> None:
        self._tell(self)

    def _read(self) -> int | None:
        """Reads what is there; how many bytes, and None where nothing more is to be read."""
        with self._lock:
            try:
                got = None if self.over else os.readv(self._fd, [self._view[self._filled :]])
            except BlockingIOError:
                return 0
            except OSError:  # EIO: the loop sees for itself
                return None
            self._filled += got or 0
            return got

    def _call(self) -> None:
        with self._lock:
            told, self._told = self._told, True
        if not told:
            self._loop.call_soon_threadsafe(self._tell, self)

    def _is_due(self, since: float) -> bool:
        """Whether what was read since a moment is to be shown."""
        late = time.monotonic() - since > TERMINAL_FLOOD_DELAY_S
        return late or self._filled >= TERMINAL_FLOOD_BATCH_BYTES

    def _wait_for_room(self) -> bool:
        """Waits until the loop has taken what is there; False if it is closed."""
        while self._filled == TERMINAL_FLOOD_BYTES and not self._loop.is_closed():
            self._room.clear()
            if self._filled == TERMINAL_FLOOD_BYTES:  # it may have been taken before that
                self._room.wait(TERMINAL_FLOOD_LOOK_S)
        return not self._loop.is_closed()


class Master:
    """The master of one terminal.

    Args:
        fd: its descriptor, which is ours from now on; it does not block.
        take: is given each chunk of output.
        go_on: has it be resumed, once a thread has read.
    """

    __slots__ = (
        "_bulk",
        "_fd",
        "_flood",
        "_go_on",
        "_loop",
        "_reading",
        "_soon",
        "_take",
        "_turn",
        "_writable",
    )

    def __init__(
        self,
        fd: int,
        take: Callable[[bytes], None],
        go_on: Callable[[], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._fd = fd
        self._take = take
        self._go_on = go_on
        self._bulk = 0  # bytes of large reads, one after the other
        self._flood: Flood | None = None  # that reads in the loop's place
        self._loop = loop
        self._reading = False
        self._soon: asyncio.TimerHandle | None = None  # it is read from then on
        self._turn: asyncio.Lock | None = None  # one writer at a time; made by the first
        self._writable: asyncio.Future[None] | None = None

    @property
    def open(self) -> bool:
        """Whether it is not closed."""
        return self._fd >= 0

    def resume(self, *, late: bool = False) -> None:
        """Reads whenever there is something to read.

        Args:
            late: from a moment on, for a program that may have ended by then.

        Raises:
            OSError: if the loop can't watch one more descriptor.
        """
        if late:
            self._soon = self._loop.call_later(TERMINAL_READ_DELAY_S, self._go_on)
        elif self._fd >= 0 and not self._reading:
            self._forget_delay()
            self._loop.add_reader(self._fd, self._read_turn)
            self._reading = True

    def pause(self) -> None:
        """Leaves what comes in the kernel, so that the program waits in its write."""
        self._forget_delay()
        reading, self._reading = self._reading, False
        flood, self._flood = self._flood, None
        if flood is not None:
            self._bulk = TERMINAL_FLOOD_AFTER  # soon again, if it goes on like that
            if chunk := flood.take(last=True):
                self._take(chunk)
        elif reading and not self._loop.is_closed():
            self._loop.remove_reader(self._fd)

    def _forget_delay(self) -> None:
        if self._soon is not None:
            self._soon.cancel()

    def drain(self) -> None:
        """Reads what was written until now, without waiting for more; it is to be closed then."""
        self.pause()
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
        self._bulk = self._bulk + turn if turn >= TERMINAL_BULK_BYTES else 0
        if self._bulk >= TERMINAL_FLOOD_AFTER and self._reading:
            self._bulk = 0
            self._flood = Flood.begin(self._fd, self._flooded, self._loop)
            if self._flood is not None:
                self._loop.remove_reader(self._fd)

    def _flooded(self, flood: Flood) -> None:
        """Takes what a thread has read; reads again when that has come to its end."""
        if flood is not self._flood:
            return
        over = flood.over  # before the rest is taken, which nothing comes after then
        if chunk := flood.take():
            self._take(chunk)
        if over and flood is self._flood:
            self._flood, self._reading = None, False
            self._go_on()

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
