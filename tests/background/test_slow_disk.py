"""A disk that does not answer: the process waits, memory stays small, and nothing is lost."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from pathlib import Path

from sandyard.limits import LOG_BUFFER_BYTES, PIPE_LARGE_BYTES
from sandyard.process.logs import LogSink, ProcessLog
from sandyard.process.logs_reading import LogReader, LogStart
from sandyard.process.pipes import InputPipe, OutputPipe, open_pipe
from tests.background.reading import read_whole, text_of
from tests.session.host import until


class SlowFiles:
    """Files of a disk that answers when it is told to."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self.answers = threading.Event()

    def open(self, name: str, *, make: bool) -> int:
        """Opens a file, once the disk answers."""
        self.answers.wait()
        return os.open(self._place / name, os.O_RDWR | (os.O_CREAT if make else 0), 0o600)

    def remove(self, name: str) -> None:
        """Removes a file."""
        (self._place / name).unlink(missing_ok=True)


async def test_writer_waits_for_the_disk(tmp_path: Path) -> None:
    files, loop, size = SlowFiles(tmp_path), asyncio.get_running_loop(), 12_000_000
    log = ProcessLog(files, "log", 16 * 1024 * 1024)
    read_end, write_end = open_pipe(None)

    def pause() -> None:
        pipe.pause()

    pipe = OutputPipe(read_end, LogSink(log, 0, pause), loop)
    log.on_room = pipe.resume
    pipe.resume()
    source = InputPipe(write_end, loop)
    given = os.urandom(size)
    source.feed(given)
    try:
        await until(lambda: log.full)
        for _ in range(100):  # time enough to read everything
            await asyncio.sleep(0)
        assert log.taken[0] <= 2 * LOG_BUFFER_BYTES + PIPE_LARGE_BYTES < size
        assert log.layout.totals == [0, 0]
    finally:
        files.answers.set()
    await until(lambda: log.taken[0] == size and not pipe.open, within=20)
    log.finish()
    await log.settled()
    told = await read_whole(LogReader(log, LogStart("beginning"), (0, 1), follow=True))
    assert text_of(told) == given
    assert log.layout.lost == log.layout.dropped == 0
    assert await source.close() is None


async def test_busy_streams_stay_apart(tmp_path: Path) -> None:
    # Both are read into the same buffers, while a thread writes what they held before.
    files, loop, size = SlowFiles(tmp_path), asyncio.get_running_loop(), 3_000_000
    files.answers.set()
    log = ProcessLog(files, "log", 16 * 1024 * 1024)
    given = [os.urandom(size), os.urandom(size)]
    pipes, sources = [], []
    for stream, data in enumerate(given):
        read_end, write_end = open_pipe(None)
        pipe = OutputPipe(read_end, LogSink(log, stream, lambda: None), loop)
        pipe.resume()
        source = InputPipe(write_end, loop)
        source.feed(data)
        pipes.append(pipe)
        sources.append(source)
    await until(lambda: log.taken == [size, size] and not any(p.open for p in pipes), within=20)
    log.finish()
    told = await read_whole(LogReader(log, LogStart("beginning"), (0, 1), follow=True))
    assert [text_of(told, name) for name in ("stdout", "stderr")] == given
    for source in sources:
        assert await source.close() is None


async def test_many_small_chunks_are_full(tmp_path: Path) -> None:
    # The bytes of two streams in turn can't be joined, and their objects are a hundred times as large.
    files = SlowFiles(tmp_path)
    log = ProcessLog(files, "log", 16 * 1024 * 1024)
    count = 0
    while not log.full:
        log.take(count % 2, b"x")
        count += 1
    files.answers.set()
    assert count * sys.getsizeof((0, b"x")) <= LOG_BUFFER_BYTES
    log.finish()
    await log.settled()
    assert sum(log.layout.totals) == count
    assert not log.full
