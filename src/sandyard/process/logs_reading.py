"""Owns one reader of a log: where it is, what it was told, and what it missed."""

from __future__ import annotations

import asyncio
import errno
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import Literal, Self

from sandyard.errors import ExecTransportError, ResourceLimitError, SessionClosedError
from sandyard.finishing import in_thread
from sandyard.limits import LOG_READ_BYTES
from sandyard.process.logs import ProcessLog
from sandyard.process.logs_layout import STREAMS, LineSearch, RecordParser
from sandyard.process.logs_stint import Stint
from sandyard.process.stream import StreamName

__all__ = ["LogChunk", "LogReader", "LogStart"]


@dataclass(frozen=True, slots=True)
class LogChunk:
    """Some bytes that a background process wrote, or the account of some that are missing.

    Attributes:
        stream: which stream they were written to.
        data: the bytes; a chunk may end within a line or a character. Empty where some are missing.
        missed: bytes of this stream that are missing here: they were overwritten before they were
            read, or could not be written. 0 in a chunk that has data.
    """

    stream: StreamName
    data: bytes
    missed: int = 0


@dataclass(frozen=True, slots=True)
class LogStart:
    """Where a reader begins.

    Attributes:
        place: at the log's beginning, now, or so many bytes or lines before its end.
        count: how many.
    """

    place: Literal["beginning", "now", "bytes", "lines"]
    count: int = 0


class LogReader:
    """Reads a log from some place to its end, while it is being written; iterate it.

    Any number of them may read one log, each at its own pace. A reader that falls so far behind that
    what it wants was overwritten is told how much it missed, and goes on with what is left.

    Example:
        >>> async for chunk in process.logs(last_lines=10, follow=False):
        ...     print(chunk.stream, chunk.data.decode(errors="replace"))
    """

    def __init__(
        self, log: ProcessLog, start: LogStart, streams: tuple[int, ...], *, follow: bool
    ) -> None:
        """Prepare a reader; use ``BackgroundProcess.logs`` instead."""
        self._log = log
        self._start = start
        self._streams = streams
        self._chunks: deque[LogChunk] = deque()
        self._number = -1  # of the segment that is being read
        self._at = 0  # in it
        self._parser = RecordParser()
        self._seen = [0] * len(STREAMS)
        self._all = sum(log.taken)  # bytes that had come when it was made
        self._taken = sum(log.taken[one] for one in streams)  # and those of the chosen streams
        self._skip = 0  # how many of those are not told
        self._until = None if follow else self._taken  # where it ends
        self._stint = log.stint  # what it has read by now is not counted yet
        self._begun = False
        self._reading = asyncio.Lock()

    def __aiter__(self) -> Self:
        """Iterates from here to the end."""
        return self

    async def __anext__(self) -> LogChunk:
        """Waits for the next chunk.

        Raises:
            SessionClosedError: the log was removed, with its session or by itself.
            ResourceLimitError, ExecTransportError: it can't be read.
        """
        async with self._reading:
            if not self._begun:
                await self._begin()
                self._begun = True
            while not self._chunks:
                if self._log.removed:
                    raise SessionClosedError(
                        op="logs", state="removed", message="this log is gone, as is its process"
                    )
                if not await self._advance():
                    raise StopAsyncIteration
            return self._chunks.popleft()

    async def _begin(self) -> None:
        start, layout = self._start, self._log.layout
        if self._stint is not None:
            await self._count_stint(self._stint)
        if start.place == "beginning":
            return
        if start.place == "now" or not start.count:
            self._skip = self._taken
        elif start.place == "bytes":
            self._skip = max(0, self._taken - start.count)
        else:
            await self._log.settled(self._all)
            search = LineSearch(self._streams, start.count, self._taken)
            self._skip = await self._line_start(search)
        segment = layout.holding(self._skip, self._streams) or layout.after(-1)
        if segment is not None:  # what came before it is not missed, but not wanted
            self._number, self._seen = segment.number, list(segment.base)

    async def _count_stint(self, stint: Stint) -> None:
        await self._log.accounted(stint)
        taken = self._log.taken
        self._all, self._taken = sum(taken), sum(taken[one] for one in self._streams)
        if self._until is not None:
            self._until = self._taken

    async def _line_start(self, search: LineSearch) -> int:
        """How many bytes of the chosen streams come before the last lines."""
        layout = self._log.layout
        for segment in [*reversed(layout.segments.values())]:
            data = await self._read(layout.place(segment.number), segment.length)
            if segment.number not in layout.segments:  # overwritten meanwhile, and all older ones
                break
            at = await in_thread(search.look, segment, data)
            if at is not None:
                return at
        first = layout.after(-1)
        return 0 if first is None else sum(first.base[one] for one in self._streams)

    async def _advance(self) -> bool:
        """Reads on, or waits until there is more; False at the end."""
        layout = self._log.layout
        if self._until is not None and self._position() >= self._until:
            return False
        segment = layout.segments.get(self._number)
        if segment is not None and self._at < segment.length:
            size = min(LOG_READ_BYTES, segment.length - self._at)
            data = await self._read(layout.place(self._number) + self._at, size)
            kept = self._number in layout.segments  # it may have been overwritten meanwhile
            if data and kept:
                self._at += size
                for stream, body in self._parser.feed(data):
                    self._tell(stream, body)
            return True
        following = layout.after(self._number)
        if following is not None:
            self._number, self._at, self._parser = following.number, 0, RecordParser()
            self._tell_missing(following.base)
            return True
        self._tell_missing(layout.totals)
        if self._log.ended:
            return bool(self._chunks)
        if not self._chunks and (self._until is None or self._position() < self._until):
            await self._log.news()
        return True

    def _position(self) -> int:
        """How many bytes of the chosen streams it has come past."""
        return sum(self._seen[one] for one in self._streams)

    def _tell_missing(self, come: tuple[int, ...] | list[int]) -> None:
        for stream, position in enumerate(come):
            self._tell(stream, position)

    def _tell(self, stream: int, body: bytes | int) -> None:
        """Takes what a record says: bytes, or how far its stream had come."""
        size = body - self._seen[stream] if isinstance(body, int) else len(body)
        if size <= 0:
            return
        before = self._position()
        self._seen[stream] += size
        if stream not in self._streams:
            return
        first = max(0, self._skip - before)
        last = size if self._until is None else min(size, self._until - before)
        if last <= first:
            return
        if isinstance(body, int):
            self._chunks.append(LogChunk(STREAMS[stream], b"", last - first))
        else:
            self._chunks.append(LogChunk(STREAMS[stream], body[first:last]))

    async def _read(self, at: int, size: int) -> bytes:
        try:
            data = await in_thread(partial(self._log.read, at, size))
        except OSError as error:
            if self._log.removed:
                return b""  # whoever asks is told that next
            raise _unreadable(error) from error
        if len(data) < size and not self._log.removed:
            raise _unreadable(OSError(errno.EIO, "its file is too short"))
        return data


def _unreadable(error: OSError) -> ResourceLimitError | ExecTransportError:
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return ResourceLimitError(
            f"the log can't be opened ({error.strerror}); close some descriptors, or raise the "
            "program's limit on open files",
            limit="open_files",
            value=error.errno,
            unit="errno",
            op="logs",
            cause=error,
            retryable=True,
        )
    return ExecTransportError(
        command=(),
        message=f"the log of the process can't be read: {error.strerror}",
        context={"reason": "log_unreadable", "errno": error.errno},
        cause=error,
        retryable=True,
    )
