"""What a thread brings from a busy pipe into a log by itself: every byte, in order, counted, bounded."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sandyard import UnixLocalSandboxSession as Session
from sandyard.limits import LOG_BUFFER_BYTES, PIPE_LARGE_BYTES
from sandyard.process import logs, logs_stint
from sandyard.process.logs import LogSink, ProcessLog
from sandyard.process.logs_reading import LogReader, LogStart
from sandyard.process.logs_stint import Stint
from sandyard.process.pipes import InputPipe, OutputPipe, open_pipe
from sandyard.process.relay import Relay
from tests.background.reading import read_whole, text_of
from tests.session.host import until

SIZE = 24_000_000
LIMIT = 64 * 1024 * 1024


class Files:
    """One file, on a disk that answers when it is told to."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.answers = threading.Event()
        self.answers.set()

    def open(self, name: str, *, make: bool) -> int:
        """Opens it, once the disk answers."""
        self.answers.wait()
        return os.open(self._path, os.O_RDWR | (os.O_CREAT if make else 0), 0o600)

    def remove(self, name: str) -> None:
        """Removes it."""
        self._path.unlink(missing_ok=True)


@dataclass
class Busy:
    """A log of two pipes that threads may read from, and what is written into them."""

    files: Files
    log: ProcessLog
    pipes: list[OutputPipe] = field(default_factory=list)
    inputs: list[InputPipe] = field(default_factory=list)

    def resume(self) -> None:
        """Has both pipes be read."""
        for pipe in self.pipes:
            pipe.resume()

    def pause(self) -> None:
        """Has neither of them be read."""
        for pipe in self.pipes:
            pipe.pause()

    async def end(self) -> None:
        """Waits until all has come."""
        await until(lambda: not any(pipe.open for pipe in self.pipes), within=30)
        self.log.finish()
        await self.log.settled()

    async def told(self) -> list[bytes]:
        """What a reader is told of each stream."""
        chunks = await read_whole(LogReader(self.log, LogStart("beginning"), (0, 1), follow=True))
        return [text_of(chunks, name) for name in ("stdout", "stderr")]


@pytest.fixture
async def busy(tmp_path: Path) -> AsyncIterator[Busy]:
    files, loop = Files(tmp_path / "log"), asyncio.get_running_loop()
    made = Busy(files, ProcessLog(files, "log", LIMIT))
    for stream in (0, 1):
        read_end, write_end = open_pipe(None)
        made.pipes.append(OutputPipe(read_end, LogSink(made.log, stream, made.pause), loop))
        made.inputs.append(InputPipe(write_end, loop))
    made.log.sources = made.pipes
    made.log.on_room = made.resume
    made.resume()
    try:
        yield made
    finally:
        files.answers.set()
        for source in made.inputs:
            await source.close()
        await made.end()


async def test_all_comes_in_order(busy: Busy) -> None:
    given = [os.urandom(SIZE), os.urandom(SIZE // 8)]
    for source, data in zip(busy.inputs, given, strict=True):
        source.feed(data)
    await until(lambda: busy.log.stint is not None)
    await busy.end()
    assert await busy.told() == given
    assert busy.log.taken == busy.log.layout.totals == [SIZE, SIZE // 8]
    assert busy.log.layout.lost == busy.log.layout.dropped == 0


async def test_the_rest_is_read_by_the_loop(busy: Busy) -> None:
    # After silence, and where no thread is to read any more.
    given = os.urandom(SIZE)
    assert await busy.inputs[0].write(given)
    await until(lambda: busy.log.taken[0] == SIZE)
    await until(lambda: busy.log.stint is None)
    assert await busy.inputs[0].write(b"after silence")
    await until(lambda: busy.log.taken[0] == SIZE + 13)
    busy.inputs[0].feed(given)
    await until(lambda: busy.log.stint is not None)
    await busy.log.calm()
    assert busy.log.stint is None
    await until(lambda: busy.log.taken[0] == 2 * SIZE + 13)
    assert busy.log.stint is None
    for source in busy.inputs:
        source.end()
    await busy.end()
    assert await busy.told() == [given + b"after silence" + given, b""]


async def test_bounded_where_the_disk_hangs(busy: Busy, monkeypatch: pytest.MonkeyPatch) -> None:
    given, work = os.urandom(SIZE), Stint.work

    def hang(stint: Stint, file: int) -> None:
        busy.files.answers.wait()
        work(stint, file)

    monkeypatch.setattr(Stint, "work", hang)
    busy.files.answers.clear()
    busy.inputs[0].feed(given)
    busy.inputs[1].feed(given)
    await until(lambda: busy.log.full)
    for _ in range(200):  # time enough to read everything
        await asyncio.sleep(0)
    assert sum(busy.log.taken) <= 2 * (LOG_BUFFER_BYTES + PIPE_LARGE_BYTES)
    busy.files.answers.set()
    await busy.end()
    assert await busy.told() == [given, given]


async def test_what_is_not_written_is_counted(busy: Busy, monkeypatch: pytest.MonkeyPatch) -> None:
    given, write = os.urandom(SIZE), Relay.write
    failed: list[int] = []

    def full(relay: Relay, file: int, size: int, at: int) -> None:
        if len(failed) < 3:
            failed.append(size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(relay, file, size, at)

    monkeypatch.setattr(Relay, "write", full)
    busy.inputs[0].feed(given)
    busy.inputs[1].end()
    await busy.end()
    layout = busy.log.layout
    assert busy.log.taken == layout.totals == [SIZE, 0]
    assert layout.lost == sum(failed) > 0
    assert isinstance(busy.log.error, OSError)
    reader = LogReader(busy.log, LogStart("beginning"), (0,), follow=True)
    at = 0
    for chunk in await read_whole(reader):
        assert given[at : at + len(chunk.data)] == chunk.data
        at += len(chunk.data) + chunk.missed
    assert at == SIZE


async def test_trickles_are_seen_soon(busy: Busy) -> None:
    # A stint that never finds silence must not keep its bytes from readers.
    assert await busy.inputs[0].write(bytes(4_000_000))
    before = sum(busy.log.layout.totals)
    for _ in range(50):
        assert await busy.inputs[0].write(b"x" * 10)
        await asyncio.sleep(0.001)
    assert sum(busy.log.layout.totals) > max(before, 4_000_000)
    for source in busy.inputs:
        source.end()


@pytest.fixture
async def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has stints end neither by time nor by silence, nor because the loop is slower than they are."""
    loop, work = asyncio.get_running_loop(), Stint.work

    def wait(stint: Stint, file: int) -> None:
        tell = stint.tell

        def tell_and_wait(stint: Stint) -> None:
            heard = threading.Event()
            tell(stint)
            loop.call_soon_threadsafe(heard.set)
            heard.wait(30)

        stint.tell = tell_and_wait
        work(stint, file)

    monkeypatch.setattr(Stint, "work", wait)
    monkeypatch.setattr(logs, "LOG_STINT_S", 60.0)
    monkeypatch.setattr(logs_stint, "LOG_STINT_S", 60.0)
    monkeypatch.setattr(logs_stint, "LOG_STINT_SILENCE", 100_000)


@pytest.mark.usefixtures("patient")
async def test_more_room_while_more_comes(busy: Busy) -> None:
    # Each part is seen when it is full, by whoever reads, and the thread need not stop for it.
    given = os.urandom(LIMIT // 2)
    busy.inputs[0].feed(given)
    await until(lambda: busy.log.stint is not None)
    stint = busy.log.stint
    assert stint is not None
    seen: list[int] = []
    while busy.log.stint is stint:
        seen.append(sum(busy.log.layout.totals))
        await busy.log.news()
    assert stint.full > 3
    assert len({*seen}) > 2
    busy.inputs[1].end()
    await busy.end()
    assert await busy.told() == [given, b""]
    assert busy.log.layout.lost == 0


@pytest.mark.usefixtures("patient")
async def test_no_more_room_where_others_wait(busy: Busy) -> None:
    given = os.urandom(SIZE)
    busy.inputs[0].feed(given)
    await until(lambda: busy.log.stint is not None)
    stint = busy.log.stint
    assert stint is not None
    busy.log.take(1, b"told at once")
    room = len(stint.spaces)
    await busy.log.accounted(stint)
    assert len(stint.spaces) == room
    for source in busy.inputs[1:]:
        source.end()
    await busy.end()
    assert await busy.told() == [given, b"told at once"]


@pytest.mark.usefixtures("patient")
async def test_full_parts_outlive_a_failure(busy: Busy, monkeypatch: pytest.MonkeyPatch) -> None:
    # Only what the last part was to hold is lost.
    given, write = os.urandom(SIZE), Relay.write
    failed: list[int] = []

    def full(relay: Relay, file: int, size: int, at: int) -> None:
        stint = busy.log.stint
        if not failed and stint is not None and stint.full == 2:
            failed.append(size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(relay, file, size, at)

    monkeypatch.setattr(Relay, "write", full)
    busy.inputs[0].feed(given)
    busy.inputs[1].end()
    await busy.end()
    assert busy.log.taken == busy.log.layout.totals == [SIZE, 0]
    assert busy.log.layout.lost == sum(failed) > 0
    at = 0
    for chunk in await read_whole(LogReader(busy.log, LogStart("beginning"), (0,), follow=True)):
        assert given[at : at + len(chunk.data)] == chunk.data
        at += len(chunk.data) + chunk.missed
    assert at == SIZE


async def test_read_by_the_loop_where_nothing_can_be_moved(
    busy: Busy, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = os.urandom(SIZE)
    monkeypatch.delattr(os, "splice")
    busy.inputs[0].feed(given)
    busy.inputs[1].end()
    await busy.end()
    assert await busy.told() == [given, b""]


@pytest.mark.parametrize("asks", ["wait", "exit code"])
async def test_last_words_of_a_busy_process(session: Session, asks: str) -> None:
    process = await session.start_process(f"head -c {SIZE} /dev/zero; echo end", log_limit=LIMIT)
    if asks == "wait":
        assert (await process.wait()).stdout_total == SIZE + 4
        assert process.log_status.stdout_total == SIZE + 4
    else:
        await until(lambda: process.exit_code is not None, within=30)
    told = text_of(await read_whole(process.logs(follow=False)))
    assert len(told) == SIZE + 4
    assert told.endswith(b"\0end\n")


async def test_ended_while_it_floods(session: Session) -> None:
    process = await session.start_process("exec yes")
    await until(lambda: process.log_status.stdout_total > SIZE, within=30)
    await process.close()
    status = process.log_status
    told = await read_whole(process.logs())
    assert sum(len(chunk.data) + chunk.missed for chunk in told) == status.stdout_total
    await session.remove_process(process)
