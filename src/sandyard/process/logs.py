"""Owns a background process's log: takes what comes from its pipes, and has threads write it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Protocol

from sandyard.errors import ResourceLimitError
from sandyard.finishing import start_thread
from sandyard.limits import (
    LOG_BUFFER_BYTES,
    LOG_BULK_BYTES,
    LOG_CHUNK_BYTES,
    LOG_JOIN_BYTES,
    LOG_STINT_S,
)
from sandyard.process.latch import wake
from sandyard.process.logs_layout import STREAMS, LogLayout, Piece
from sandyard.process.logs_stint import Source, Stint, write_whole
from sandyard.process.relay import Relay

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
    as has come meanwhile; and where much comes, the thread reads on by itself (``Stint``). Between two
    writes it holds no descriptor and no thread.

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
        on_room: called when a log that was ``full`` has room again, or a pipe can be resumed.
        sources: the pipes of the streams that threads may read from; none where the loop reads all.
        stint: of the thread that does so now; None while none does.
    """

    __slots__ = (
        "_busy",
        "_closing",
        "_files",
        "_loop",
        "_name",
        "_news",
        "_stint_until",
        "_waiting",
        "_waiting_bytes",
        "_writing",
        "ended",
        "error",
        "layout",
        "on_room",
        "removed",
        "sources",
        "stint",
        "taken",
    )

    def __init__(self, files: LogFiles, name: str, limit: int) -> None:
        self._files = files
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._waiting: list[tuple[int, bytes | bytearray]] = []
        self._waiting_bytes = 0
        self._busy = 0  # bytes that have come since nothing waited
        self._writing: list[Piece] | None = None
        self.stint: Stint | None = None
        self._stint_until = 0.0  # after which it is given no more room
        self._news: list[asyncio.Future[None]] = []
        self._closing = False
        self.layout = LogLayout(limit)
        self.taken = [0] * len(STREAMS)
        self.error: _Failure | None = None
        self.ended = False
        self.removed = False
        self.on_room: Callable[[], None] | None = None
        self.sources: Sequence[Source] = ()

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
            if len(last) + len(data) <= LOG_JOIN_BYTES:
                joined = last if isinstance(last, bytearray) else bytearray(last)
                joined += data
                self._waiting[-1] = (stream, joined)
                return
        self._waiting.append((stream, data))
        self._waiting_bytes += LOG_CHUNK_BYTES
        if self._writing is None:
            self._write()

    async def calm(self) -> None:
        """Waits until no thread reads from a pipe; none will from now on."""
        self.sources = ()
        while self.stint is not None and not self.removed:
            await self.news()

    async def accounted(self, stint: Stint | None) -> None:
        """Waits until what a stint has read is counted."""
        while stint is not None and self.stint is stint and not self.removed:
            await self.news()

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

    def _write(self, flowing: int | None = None) -> None:
        """Has a thread write what waits, and read on from a pipe that much comes from.

        Args:
            flowing: the stream of the last stint, if there was more.
        """
        self._busy += self._waiting_bytes
        if flowing is None and self._busy >= LOG_BULK_BYTES and self._waiting:
            flowing = self._waiting[-1][0]
        chunks, self._waiting = self._waiting, []
        self._waiting_bytes = 0
        pieces = self.layout.plan(chunks)
        self.stint = None if flowing is None else self._new_stint(flowing, pieces)
        work = partial(_write_pieces, self._files, self._name, pieces, self.stint)
        self._writing = pieces
        try:
            future = start_thread(work)
        except ResourceLimitError as error:  # no thread
            self._finish_write(0, error)
            self._let_come()
            return
        future.add_done_callback(self._written)

    def _new_stint(self, stream: int, pieces: list[Piece]) -> Stint | None:
        """A stint behind some pieces; None where the loop has to read by itself."""
        if not self.sources or self.layout.segment_bytes < LOG_BULK_BYTES:
            return None
        source, spaces = self.sources[stream], self.layout.spaces_after(pieces)
        if not spaces:
            return None
        try:
            relay = Relay(LOG_BULK_BYTES)
        except OSError:  # a thread would be faster, no more
            return None
        try:
            fd = source.lend()
        except OSError:  # likewise
            fd = None
        if fd is None:
            relay.close()
            return None
        self._stint_until = self._loop.time() + LOG_STINT_S
        return Stint(source, stream, spaces, fd, relay, self._call_filled)

    def _call_filled(self, stint: Stint) -> None:
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._filled, stint)

    def _filled(self, stint: Stint) -> None:
        """Takes note of what a thread has written, and lets it go on where nothing else waits."""
        if stint is not self.stint or self._writing is None:
            return
        pieces, self._writing = self._writing, []
        for piece in pieces:  # they come before it
            self.layout.commit(piece)
        self._count(stint, stint.full)
        if self.sources and not self._waiting and self._loop.time() < self._stint_until:
            stint.spaces.append(self.layout.space_behind(stint.spaces[-1]))
        self._tell()

    def _count(self, stint: Stint, upto: int) -> None:
        for space, size in [*zip(stint.spaces, stint.filled, strict=False)][stint.counted : upto]:
            self.taken[stint.stream] += size
            self.layout.commit_space(space, stint.stream, size)
        stint.counted = upto

    def _written(self, future: asyncio.Future[_Written]) -> None:
        flowing = self._finish_write(*future.result())
        if self._writing is None:  # which a pipe that is read again at once has had done
            if self._waiting or flowing is not None:
                self._write(flowing)
            else:
                self._busy = 0
        self._let_come()
        self._settle()

    def _finish_write(self, done: int, error: _Failure | None) -> int | None:
        """Takes note of what was written; the stream of which more is there, if a thread read it."""
        pieces, self._writing = self._writing or [], None
        stint, self.stint = self.stint, None
        if stint is not None:
            stint.close()
        self._account(pieces, done, error, stint)
        if stint is None:
            return None
        stint.source.regain(ended=stint.ended)
        return stint.stream if stint.flowing and self.sources else None

    def _let_come(self) -> None:
        if self.on_room is not None and not self.full:
            self.on_room()

    def _account(
        self, pieces: list[Piece], done: int, error: _Failure | None, stint: Stint | None
    ) -> None:
        for piece in pieces[:done]:
            self.layout.commit(piece)
        for piece in pieces[done:]:
            self.layout.lose(piece.stream, piece.size)
        if stint is not None:
            self._count(stint, len(stint.filled) if error is None else stint.full)
            self.taken[stint.stream] += stint.uncounted
            self.layout.lose(stint.stream, stint.uncounted)
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
        data = os.read(fd, size)
        if data:
            self._log.take(self._stream, data)
            if self._log.full:
                self._pause()
        return len(data)


def _write_pieces(files: LogFiles, name: str, pieces: list[Piece], stint: Stint | None) -> _Written:
    """Writes pieces in their order, then does a stint; how many are written, and why not all."""
    done = 0
    try:
        fd = files.open(name, make=True)
        try:
            for piece in pieces:
                if piece.at is not None:
                    write_whole(fd, [memoryview(piece.head), piece.body], piece.at)
                done += 1
            if stint is not None:
                stint.work(fd)
        finally:
            os.close(fd)
    except (OSError, MemoryError) as error:
        return done, error
    return done, None
