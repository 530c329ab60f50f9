"""Owns pipes to and from a command: the host's ends never block, the command's ends are plain.

A pipe is made here and only here, because what crosses into a sandbox must be ours: a caller's file
could be reopened for writing through /proc/self/fd, a caller's terminal would take input ioctls.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import TYPE_CHECKING, BinaryIO, Final

from sandyard.limits import (
    COPY_CHUNK_BYTES,
    DESCRIPTORS_PER_COMMAND,
    DESCRIPTORS_RETRIES,
    DESCRIPTORS_RETRY_S,
    PIPE_BULK_BYTES,
    PIPE_FLOOD_AFTER,
    PIPE_LARGE_BYTES,
    PIPE_READ_BYTES,
    PIPE_TURN_BYTES,
)
from sandyard.process.budget import descriptor_budget
from sandyard.process.capture import Capture, Dropping, Sink
from sandyard.process.failures import no_descriptor, no_pipe
from sandyard.process.identity import owner_outside
from sandyard.process.latch import wake

if TYPE_CHECKING:
    from sandyard.plan import Spawn
    from sandyard.process.pipe_flood import PipeFlood

__all__ = [
    "ChunkSink",
    "Identity",
    "InputPipe",
    "OutputPipe",
    "StdinSource",
    "Streams",
    "as_bytes",
    "open_pipe",
]

StdinSource = bytes | bytearray | memoryview | BinaryIO | AsyncIterable[bytes]
"""What a command may be given to read: bytes, a binary file, or chunks as they come."""

Identity = tuple[int, int]


_ALL_MAY: Final = 0o666
_SIZED: Final = hasattr(fcntl, "F_SETPIPE_SZ")
"""Whether pipes have sizes of their own: on macOS the kernel alone decides."""


def open_pipe(owner: Identity | None, *, open_to_all: bool = False) -> tuple[int, int]:
    """A pipe that belongs to the sandbox's identity.

    Args:
        owner: uid and gid on the host, or None where the caller itself is that identity. A command
            can reopen /dev/stdout and /dev/stderr only if it owns the pipe behind them.
        open_to_all: True where it is neither, and the caller can give nothing away: then everybody
            may reopen it who may look into a process that has it, which only its own user may.
    """
    read_end, write_end = os.pipe()
    try:
        if owner is not None:
            os.fchown(read_end, *owner)  # both ends are one inode
        if open_to_all:
            os.fchmod(read_end, _ALL_MAY)
    except BaseException:
        os.close(read_end)
        os.close(write_end)
        raise
    return read_end, write_end


def as_bytes(data: bytes | bytearray | memoryview) -> memoryview:
    """What is to be written, byte by byte; a view with gaps is copied."""
    view = memoryview(data)
    return (view if view.c_contiguous else memoryview(view.tobytes())).cast("B")


class ChunkSink:
    """Hands each chunk to a function, on the loop."""

    __slots__ = ("_take",)

    def __init__(self, take: Callable[[bytes], None]) -> None:
        self._take = take

    def read(self, fd: int, size: int) -> int:
        """Reads once, and hands on what came."""
        chunk = os.read(fd, size)
        if chunk:
            self._take(chunk)
        return len(chunk)


class OutputPipe:
    """The read end of a command's stdout or stderr.

    Args:
        sink: what reads from it.

    Attributes:
        failed: why output was lost; from then on all is read and dropped. None while all is well.
    """

    __slots__ = (
        "_bulk",
        "_due",
        "_fd",
        "_flood",
        "_grown",
        "_lent",
        "_loop",
        "_reading",
        "_sink",
        "_size",
        "failed",
    )

    def __init__(self, fd: int, sink: Sink, loop: asyncio.AbstractEventLoop) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self.failed: MemoryError | None = None
        self._sink, self._loop = sink, loop
        self._size = PIPE_READ_BYTES  # of the next read
        self._lent = self._due = False  # to somebody who reads; and is to be drained after that
        self._grown = self._reading = False
        self._bulk = 0  # bytes of turns that gave many, one after the other
        self._flood: PipeFlood | None = None  # that reads in the loop's place

    @property
    def open(self) -> bool:
        """Whether the stream's end has not been seen and the pipe is not closed."""
        return self._fd >= 0

    def divert(self, sink: Sink) -> None:
        """Sends what follows to another sink; a thread that reads is stopped, as by ``pause``."""
        if self._flood is not None:
            self.pause()
        self._sink = sink

    def resume(self) -> None:
        """Reads whenever there is something to read."""
        if self._fd >= 0 and not self._reading and not self._lent:
            self._loop.add_reader(self._fd, self._read_turn)
            self._reading = True

    def pause(self) -> None:
        """Leaves what comes in the pipe, so that the command waits."""
        reading, self._reading = self._reading, False
        flood, self._flood = self._flood, None
        if flood is not None:
            flood.stop()
            self._take_failure(flood.failed)
        elif reading and not self._loop.is_closed():
            self._loop.remove_reader(self._fd)

    def lend(self) -> int | None:
        """Lets only somebody else read until ``regain``; a descriptor that is theirs, or OSError."""
        if self._fd < 0:
            return None
        fd = os.dup(self._fd)  # which stays what it is when the pipe is closed here
        self.pause()
        self._grow()
        self._lent = True
        return fd

    def regain(self, *, ended: bool) -> None:
        """Can be resumed again; or is closed, where the end of the stream was read."""
        self._lent = False
        if ended:
            self.close()
        elif self._due:
            self.drain()

    def drain(self) -> None:
        """Reads what is in the pipe now, without waiting for more.

        No more than fits into a pipe: what comes after that was not there when this was called, and
        somebody who goes on writing must not keep us here. A thread that reads is stopped, as by ``pause``.
        """
        self._due = self._lent
        if self._fd < 0 or self._lent:
            return
        if self._flood is not None:
            self.pause()
        got = self._read_some()
        if got == 0 or self._fd < 0:
            return  # most commands: their end, at once
        room = _size_of(self._fd) - got
        while room > 0 and (got := self._read_some()):
            room -= got

    def close(self) -> None:
        """Closes the pipe; the other end is told by SIGPIPE if it goes on writing."""
        if self._reading:
            self.pause()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _read_turn(self) -> None:
        # Until the pipe is empty: to stop at the first short read would cost a turn of the loop for
        # each few pages that a fast writer adds.
        turn = 0
        while turn < PIPE_TURN_BYTES and self._reading and (got := self._read_some()):
            turn += got
        self._bulk = self._bulk + turn if turn >= PIPE_READ_BYTES else 0
        if self._bulk >= PIPE_FLOOD_AFTER and self._reading:
            self._begin_flood()

    def _begin_flood(self) -> None:
        self._bulk = 0
        if isinstance(self._sink, Capture | Dropping):  # others hand it on, on the loop
            from sandyard.process.pipe_flood import PipeFlood  # noqa: PLC0415  # few write so much

            self._flood = PipeFlood.begin(self._fd, self._sink, self._flooded, self._loop)
            if self._flood is not None:
                self._loop.remove_reader(self._fd)

    def _flooded(self, flood: PipeFlood) -> None:
        """Reads again when a thread has come to its end."""
        if flood is not self._flood:
            return
        self.pause()
        if flood.ended:
            self.close()
            return
        try:
            self.resume()
        except OSError as error:  # epoll_ctl(2): ENOMEM, ENOSPC
            self._take_failure(MemoryError(error.errno, error.strerror))
            self.close()  # nobody reads: the command must come to its end

    def _take_failure(self, error: MemoryError | None) -> None:
        # What the sink could not take is lost, so what it has is no output any more; and the
        # command must come to its end.
        if error is not None:
            self.failed, self._sink = error, Dropping()

    def _read_some(self) -> int:
        """Reads once; returns how many bytes came, 0 at the end or where nothing is there."""
        if self._fd < 0:
            return 0
        try:
            got = self._sink.read(self._fd, self._size)
        except BlockingIOError:
            return 0
        except MemoryError as error:
            self._take_failure(error)
            return self._read_some()
        if got == 0:
            self.close()
            return 0
        if got == PIPE_READ_BYTES and not self._grown:
            self._grow()
        if self._grown:
            # As much as is likely to come: the rest of a large allocation would lie idle between
            # the small ones that are kept.
            self._size = min(max(2 * got, PIPE_READ_BYTES), PIPE_BULK_BYTES)
        return got

    def _grow(self) -> None:
        # EPERM: the user's pages for pipes are used up; then it stays as it is.
        if _SIZED:
            with contextlib.suppress(OSError):
                fcntl.fcntl(self._fd, fcntl.F_SETPIPE_SZ, PIPE_LARGE_BYTES)
        self._grown = True


def _size_of(pipe: int) -> int:
    """What fits into a pipe now: whoever writes to it may have changed that."""
    return fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ) if _SIZED else PIPE_LARGE_BYTES


class InputPipe:
    """The write end of a command's stdin, and the source that it is fed from.

    A command that stops reading is no error: what is left of the source is not read.
    """

    __slots__ = ("_fd", "_loop", "_task", "_waiter")

    def __init__(self, fd: int, loop: asyncio.AbstractEventLoop) -> None:
        os.set_blocking(fd, False)
        self._fd, self._loop = fd, loop
        self._task: asyncio.Task[None] | None = None
        self._waiter: asyncio.Future[None] | None = None

    def feed(self, source: StdinSource) -> None:
        """Writes ``source`` to its end in the background, then closes the pipe."""
        self._task = self._loop.create_task(self._feed(source))

    async def write(self, data: bytes | bytearray | memoryview) -> bool:
        """Writes all of ``data``; False once nobody reads any more."""
        rest = as_bytes(data)
        while rest:
            if self._fd < 0:
                return False
            try:
                rest = rest[os.write(self._fd, rest) :]
            except BlockingIOError:
                await self._writable()
            except BrokenPipeError:
                return False
        return True

    async def close(self) -> BaseException | None:
        """Stops feeding and closes the pipe; returns what the source raised, if it did."""
        error = None
        if self._task is not None:
            self._task.cancel()
            (outcome,) = await asyncio.gather(self._task, return_exceptions=True)
            if isinstance(outcome, Exception):
                error = outcome
            self._task = None
        self.end()
        return error

    def end(self) -> None:
        """Closes the pipe: the command reads the end of its input."""
        if self._waiter is not None:
            if not self._loop.is_closed():
                self._loop.remove_writer(self._fd)
            wake(self._waiter)
            self._waiter = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    async def _feed(self, source: StdinSource) -> None:
        try:
            async for chunk in _chunks(source):
                if not await self.write(chunk):
                    return
        finally:
            self.end()

    async def _writable(self) -> None:
        if self._waiter is None:
            self._loop.add_writer(self._fd, self._wake)  # which may fail: then nobody may wait
            self._waiter = self._loop.create_future()
        await asyncio.shield(self._waiter)

    def _wake(self) -> None:
        self._loop.remove_writer(self._fd)
        if self._waiter is not None:
            wake(self._waiter)
        self._waiter = None


async def _chunks(source: StdinSource) -> AsyncIterator[bytes | bytearray | memoryview]:
    if isinstance(source, bytes | bytearray | memoryview):
        yield source
    elif isinstance(source, AsyncIterable):
        async for chunk in source:
            yield chunk
    else:
        while chunk := await asyncio.to_thread(source.read, COPY_CHUNK_BYTES):
            yield chunk


class Streams:
    """What a command's output is read from, and its input written to.

    Args:
        sinks: what takes its stdout and its stderr.

    Attributes:
        outputs: the pipes that are read from; none while the sandbox has them.
        input: the pipe that the command reads from; None where there is none.
    """

    __slots__ = ("_sinks", "input", "outputs")

    def __init__(self, sinks: tuple[Sink, Sink]) -> None:
        self._sinks = sinks
        self.outputs: list[OutputPipe] = []
        self.input: InputPipe | None = None

    async def make(
        self,
        words: tuple[str, ...],
        spawn: Spawn,
        owner: Identity | None,
        *,
        reads: bool,
        writes: bool,
    ) -> list[int]:
        """Makes the pipes of a command that is to begin.

        Args:
            words: the command as errors name it.
            spawn: what runs.
            owner: uid and gid of the sandbox on the host, or None where that is the caller itself.
            reads: whether it has something to read.
            writes: whether it writes into pipes of ours.

        Returns:
            The command's ends in the order of its descriptors, to be closed by the caller.

        Raises:
            ResourceLimitError: this program has no descriptor left.
            ExecTransportError: they can't be made for another reason.
        """
        if not reads and not writes:
            return []
        for attempt in range(DESCRIPTORS_RETRIES):
            try:
                return self._try(spawn, owner, reads=reads, writes=writes)
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE):
                    raise no_pipe(words, error) from error
                # The budget can't know what the host program opens. Others of ours may close.
                if (
                    descriptor_budget.used <= DESCRIPTORS_PER_COMMAND
                    or attempt + 1 == DESCRIPTORS_RETRIES
                ):
                    raise no_descriptor(error) from error
            await asyncio.sleep(DESCRIPTORS_RETRY_S)
        raise AssertionError("unreachable")

    def _try(
        self, spawn: Spawn, sandbox: Identity | None, *, reads: bool, writes: bool
    ) -> list[int]:
        opened: list[int] = []
        owner = owner_outside(sandbox, spawn.user)
        others = owner is None and spawn.user is not None and spawn.user.number > 0
        try:
            for _ in range((1 if reads else 0) + (2 if writes else 0)):
                opened += open_pipe(owner, open_to_all=others)
        except OSError:
            for fd in opened:
                os.close(fd)
            raise
        theirs: list[int] = []
        if reads:
            theirs.append(opened[0])
            self.input = InputPipe(opened[1], asyncio.get_running_loop())
        if writes:
            out_read, out_write, err_read, err_write = opened[-4:]
            self.take_over((out_read, err_read))
            theirs += (out_write, err_write)
        return theirs

    def take_over(self, pipes: tuple[int, int]) -> None:
        """Owns the ends from which stdout and stderr are read from here on."""
        loop = asyncio.get_running_loop()
        self.outputs = [
            OutputPipe(fd, sink, loop) for fd, sink in zip(pipes, self._sinks, strict=True)
        ]

    def resume(self) -> None:
        """Reads whenever there is something to read.

        Raises:
            OSError: the loop can't watch a pipe.
        """
        for output in self.outputs:
            output.resume()

    def pause(self) -> None:
        """Leaves what comes in the pipes, so that the command waits."""
        for output in self.outputs:
            output.pause()

    def drain(self) -> None:
        """Reads what is in the pipes now."""
        for output in self.outputs:
            output.drain()

    def close(self) -> None:
        """Closes the ends that are read from."""
        for output in self.outputs:
            output.close()

    def failure(self) -> MemoryError | None:
        """Why output was lost; None while all is well."""
        for output in self.outputs:
            if output.failed is not None:
                return output.failed
        return None
