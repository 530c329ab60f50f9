"""Owns a background process's log: takes what comes from its pipes, and has threads write it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from functools import partial
from typing import Protocol

from sandyard.errors import ResourceLimitError
from sandyard.finishing import start_thread
from sandyard.limits import LOG_BUFFER_BYTES, LOG_CHUNK_BYTES, LOG_JOIN_BYTES, PIPE_READ_BYTES
from sandyard.process.latch import wake
from sandyard.process.logs_layout import STREAMS, LogLayout, Piece
from sandyard.process.logs_room import LogRoom

__all__ = ["LogFiles", "LogSink", "ProcessLog"]


_Failure = OSError | MemoryError | ResourceLimitError
_Written = tuple[int, _Failure | None]
"""How many pieces were written, and why not the others."""


class LogFiles(Protocol):
    """Where logs are kept. Its calls block, and are made in threads, several at a time."""

    def open(self, name: str, *, make: bool) -> int:
        """Opens a log for reading and writing.

        Args:
            name: its name.
            make: whether to make it if it is missing.

        Raises:
            OSError: that can't be done.
        """
        ...

    def remove(self, name: str) -> None:
        """Removes a log, if it is there.

        Raises:
            OSError: that can't be done.
        """
        ...


class ProcessLog:
    """What a process wrote, in a file of limited size.

    It belongs to a loop, which it never blocks: what comes is written by a thread, as much at a time
    as has come meanwhile. Between two writes it holds no descriptor and no thread.

    Args:
        files: where it is kept.
        name: its name there.
        limit: bytes that its file may have.

    Attributes:
        layout: what is written, and where.
        taken: bytes of each stream that have come.
        error: why something could not be written; the last reason. None while all is well.
        ended: nothing more will come, and all that came was written or lost.
        removed: its file is gone, or about to be.
        on_room: called when a log that was ``full`` has room again.
    """

    __slots__ = (
        "_closing",
        "_files",
        "_loop",
        "_name",
        "_news",
        "_room",
        "_waiting",
        "_waiting_bytes",
        "_writing",
        "ended",
        "error",
        "layout",
        "on_room",
        "removed",
        "taken",
    )

    def __init__(self, files: LogFiles, name: str, limit: int) -> None:
        self._files = files
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._room = LogRoom()
        self._waiting: list[tuple[int, bytes | bytearray | memoryview]] = []
        self._waiting_bytes = 0
        self._writing: list[Piece] | None = None
        self._news: list[asyncio.Future[None]] = []
        self._closing = False
        self.layout = LogLayout(limit)
        self.taken = [0] * len(STREAMS)
        self.error: _Failure | None = None
        self.ended = False
        self.removed = False
        self.on_room: Callable[[], None] | None = None

    @property
    def full(self) -> bool:
        """Whether so much waits to be written that no more should come for now."""
        return self._waiting_bytes >= LOG_BUFFER_BYTES

    def take(self, stream: int, data: bytes) -> None:
        """Takes the next bytes of a stream."""
        self.taken[stream] += len(data)
        self._waiting_bytes += len(data)
        if self._waiting and self._waiting[-1][0] == stream:
            last = self._waiting[-1][1]
            if not isinstance(last, memoryview) and len(last) + len(data) <= LOG_JOIN_BYTES:
                joined = last if isinstance(last, bytearray) else bytearray(last)
                joined += data
                self._waiting[-1] = (stream, joined)
                return
        self._add(stream, data)

    def take_from(self, stream: int, fd: int, size: int) -> int:
        """Reads the next bytes of a stream, at most so many; returns how many came, 0 at its end.

        Raises:
            BlockingIOError: nothing is there.
        """
        if self._writing is None and size <= PIPE_READ_BYTES:
            data = os.read(fd, size)
            if data:
                self.take(stream, data)
            return len(data)
        # Much is on its way: into a buffer that is used again, where neither memory is asked for nor
        # small chunks are copied to be joined.
        got = os.readv(fd, [self._room.free(size)])
        if got:
            self._take_filled(stream, got)
        return got

    def _take_filled(self, stream: int, size: int) -> None:
        self.taken[stream] += size
        self._waiting_bytes += size
        last = self._waiting[-1] if self._waiting else None
        if (
            last is not None
            and last[0] == stream
            and isinstance(last[1], memoryview)
            and self._room.continued
        ):
            self._waiting[-1] = (stream, self._room.fill(size, joined=True))
        else:
            self._add(stream, self._room.fill(size, joined=False))

    def _add(self, stream: int, data: bytes | memoryview) -> None:
        self._waiting.append((stream, data))
        self._waiting_bytes += LOG_CHUNK_BYTES
        if self._writing is None:
            self._write()

    def finish(self) -> None:
        """Nothing more will come."""
        self._closing = True
        self._settle()

    async def settled(self, taken: int | None = None) -> None:
        """Waits until what has come is written or lost.

        Args:
            taken: bytes of all streams together that are waited for; None waits for the end.
        """
        while not (self.ended or self.removed):
            if taken is not None and sum(self.layout.totals) >= taken:
                return
            await self.news()

    async def news(self) -> None:
        """Waits until something was written or lost, or the log has ended or is removed."""
        if self.removed:
            return
        waiter = self._loop.create_future()
        self._news.append(waiter)
        try:
            await waiter
        finally:
            if waiter in self._news:
                self._news.remove(waiter)

    def read(self, at: int, size: int) -> bytes:
        """Reads from the file; it blocks.

        Raises:
            OSError: it can't be read.
        """
        fd = self._files.open(self._name, make=False)
        try:
            return os.pread(fd, size, at)
        finally:
            os.close(fd)

    def forget(self) -> None:
        """Tells whoever reads that it is about to be removed."""
        self.removed = True
        self._tell()

    def remove(self) -> None:
        """Removes the file; it blocks. ``forget`` comes first, and nothing may be written any more.

        Raises:
            OSError: it can't be removed.
        """
        self._files.remove(self._name)

    def _write(self) -> None:
        chunks, self._waiting = self._waiting, []
        self._waiting_bytes = 0
        full = self._room.cut()
        pieces = self.layout.plan(chunks)
        work = partial(_write_pieces, self._files, self._name, pieces)
        try:
            future = start_thread(work)
        except ResourceLimitError as error:  # no thread
            self._account(pieces, 0, error)
            return
        self._writing = pieces
        future.add_done_callback(partial(self._written, full))

    def _written(self, full: list[bytearray], future: asyncio.Future[_Written]) -> None:
        pieces, self._writing = self._writing or [], None
        done, error = future.result()
        self._room.recycle(full, idle=not self._waiting)
        self._account(pieces, done, error)
        if self._waiting:
            self._write()
        if self.on_room is not None and not self.full:
            self.on_room()
        self._settle()

    def _account(self, pieces: list[Piece], done: int, error: _Failure | None) -> None:
        for piece in pieces[:done]:
            self.layout.commit(piece)
        for piece in pieces[done:]:
            self.layout.lose(piece.stream, piece.size)
        if error is not None:
            self.error = error
        self._tell()

    def _settle(self) -> None:
        if self._closing and self._writing is None and not self._waiting:
            self.ended = True
            self._tell()

    def _tell(self) -> None:
        news, self._news = self._news, []
        for waiter in news:
            wake(waiter)


class LogSink:
    """Gives a log what a pipe has; a log that is full has its process wait.

    Args:
        log: the log.
        stream: whose pipe it is, by its number.
        pause: lets the process wait.
    """

    __slots__ = ("_log", "_pause", "_stream")

    def __init__(self, log: ProcessLog, stream: int, pause: Callable[[], None]) -> None:
        self._log = log
        self._stream = stream
        self._pause = pause

    def read(self, fd: int, size: int) -> int:
        """Reads once, and hands on what came."""
        got = self._log.take_from(self._stream, fd, size)
        if got and self._log.full:
            self._pause()
        return got


def _write_pieces(files: LogFiles, name: str, pieces: list[Piece]) -> _Written:
    """Writes pieces in their order; returns how many are written, and why not the others."""
    done = 0
    try:
        fd = files.open(name, make=True)
        try:
            for piece in pieces:
                if piece.at is not None:
                    _write_whole(fd, [memoryview(piece.head), piece.body], piece.at)
                done += 1
        finally:
            os.close(fd)
    except (OSError, MemoryError) as error:
        return done, error
    return done, None


def _write_whole(fd: int, parts: list[memoryview], at: int) -> None:
    while parts:
        wrote = os.pwritev(fd, parts, at)  # less than all of it: the next says why
        at += wrote
        while parts and wrote >= len(parts[0]):
            wrote -= len(parts.pop(0))
        if wrote:
            parts[0] = parts[0][wrote:]
