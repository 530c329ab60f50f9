"""Threads that read what comes without a pause: nothing is lost, and who stops one may read at once."""

from __future__ import annotations

import _thread  # noqa: PLC2701  # whose start is made to fail
import asyncio
import errno
import os
import threading
import time
from collections.abc import AsyncIterator, Callable

import pytest

from sandyard import ExecTimeoutError
from sandyard import UnixLocalSandboxSession as Session
from sandyard.limits import PIPE_FLOOD_AFTER, PIPE_READ_BYTES
from sandyard.process import pipe_flood, pipes
from sandyard.process.capture import Capture, Sink
from sandyard.process.pipe_flood import PipeFlood
from sandyard.process.pipes import OutputPipe, open_pipe
from sandyard.process.reading_thread import Places
from tests.process.test_capture import modelled
from tests.session.host import until

LIMIT = 400_000
SIZE = 8 * PIPE_FLOOD_AFTER
PIECE = os.urandom(1_000_003)


class Busy:
    """A pipe that a thread fills as fast as it is emptied, and that is read into a capture.

    Args:
        begun: what was begun to read it; a busy machine may take long to come to that.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, begun: list[PipeFlood | None]) -> None:
        self._begun = begun
        self.capture = Capture(LIMIT)
        read_end, self.into = open_pipe(None)
        self.pipe = OutputPipe(read_end, self.capture, loop)
        self.given = 0
        self._writer: threading.Thread | None = None
        self._ends = False

    def flood(self, size: int = SIZE) -> None:
        """Fills the pipe, and writes for so many bytes more once something else reads than the loop."""
        self._begun.clear()
        self._fill()
        self._writer = threading.Thread(target=self._write, args=(size,))
        self._writer.start()

    def trickle(self, size: int) -> None:
        """Writes so many bytes."""
        self.given += os.write(self.into, piece(self.given)[:size])

    async def flooded(self) -> None:
        """Waits until something else reads than the loop."""
        await until(lambda: self._begun, within=30)

    async def written(self) -> None:
        """Waits until all is written."""
        assert self._writer is not None
        await asyncio.to_thread(self._writer.join)

    def check(self) -> None:
        """The capture has all that was written, and tells of it what it should."""
        assert self.capture.result() == modelled(whole(self.given), LIMIT)

    def end(self) -> None:
        """Lets the writer write nothing more."""
        self._ends = True

    def close(self) -> None:
        """Ends both sides."""
        self.end()
        self.pipe.close()
        if self._writer is not None:
            self._writer.join()
        os.close(self.into)

    def _fill(self) -> None:
        # A thread of ours, on a busy machine, may never write as fast as a command that is to be met so.
        os.set_blocking(self.into, False)
        self.given += os.write(self.into, piece(self.given))
        os.set_blocking(self.into, True)

    def _write(self, size: int) -> None:
        try:
            while size > 0 and not self._ends:
                self.given += (wrote := os.write(self.into, piece(self.given)))
                size -= wrote if self._begun else 0
        except BrokenPipeError:
            pass


def piece(at: int) -> bytes:
    """What comes at a place of the stream."""
    return PIECE[at % len(PIECE) :]


def whole(size: int) -> bytes:
    """The first bytes of the stream."""
    return (PIECE * (size // len(PIECE) + 1))[:size]


def reading() -> int:
    """How many threads read."""
    return pipe_flood.PIPE_FLOOD_PLACES.taken


async def no_thread() -> None:
    """Waits until none does."""
    await until(lambda: not reading())


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[PipeFlood | None]:
    """What was begun to read in the loop's place, or None where that could not be."""
    begin, found = PipeFlood.begin, list[PipeFlood | None]()

    def begin_told(
        fd: int,
        sink: Sink,
        tell: Callable[[PipeFlood], None],
        loop: asyncio.AbstractEventLoop,
    ) -> PipeFlood | None:
        found.append(flood := begin(fd, sink, tell, loop))
        return flood

    monkeypatch.setattr(PipeFlood, "begin", begin_told)
    monkeypatch.setattr(
        pipes, "PIPE_FLOOD_AFTER", PIPE_READ_BYTES
    )  # as much as a pipe has room for
    return found


@pytest.fixture
async def busy(begun: list[PipeFlood | None]) -> AsyncIterator[Busy]:
    made = Busy(asyncio.get_running_loop(), begun)
    yield made
    made.close()


async def test_all_comes_and_the_end_is_seen(busy: Busy) -> None:
    busy.pipe.resume()
    busy.flood()
    await busy.flooded()
    await busy.written()
    os.close(busy.into)
    await until(lambda: not busy.pipe.open)
    busy.into = os.open(os.devnull, os.O_WRONLY)
    await no_thread()
    busy.check()


async def test_the_loop_reads_after_silence(busy: Busy) -> None:
    busy.pipe.resume()
    busy.flood()
    await busy.flooded()
    await busy.written()
    await no_thread()
    busy.trickle(100)
    await until(lambda: busy.capture.total == busy.given)
    assert not reading()
    busy.check()


@pytest.mark.parametrize("how", ["drain", "pause"])
async def test_stopped_at_once(busy: Busy, how: str) -> None:
    # What came is there, in order; and what comes later is nobody's until it is asked for.
    busy.pipe.resume()
    busy.flood(100 * SIZE)
    await busy.flooded()
    getattr(busy.pipe, how)()
    total = busy.capture.total
    await no_thread()
    assert busy.capture.total == total
    assert busy.capture.result() == modelled(whole(total), LIMIT)
    busy.pipe.resume()
    await until(lambda: busy.capture.total > total)


async def test_drained_to_the_end(busy: Busy) -> None:
    busy.pipe.resume()
    busy.flood()
    await busy.flooded()
    await busy.written()
    busy.pipe.drain()
    busy.check()


async def test_diverted(busy: Busy) -> None:
    busy.pipe.resume()
    busy.flood(100 * SIZE)
    await busy.flooded()
    later = Capture(0)
    busy.pipe.divert(later)
    total = busy.capture.total
    busy.pipe.resume()
    await until(lambda: later.total > 0)
    busy.end()
    await busy.written()
    await until(lambda: total + later.total == busy.given)
    assert busy.capture.total == total


async def test_memory_runs_out(busy: Busy, monkeypatch: pytest.MonkeyPatch) -> None:
    # Then the output is no output any more, and the command still comes to its end.
    read = Capture.read

    def fail(capture: Capture, fd: int, size: int) -> int:
        if threading.get_ident() != threading.main_thread().ident:
            raise MemoryError
        return read(capture, fd, size)

    monkeypatch.setattr(Capture, "read", fail)
    busy.pipe.resume()
    busy.flood()
    await busy.written()
    await until(lambda: busy.pipe.failed is not None)
    assert busy.capture.total < busy.given


async def test_no_room_for_a_thread(busy: Busy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipe_flood, "PIPE_FLOOD_PLACES", Places(0))
    busy.pipe.resume()
    busy.flood()
    await busy.written()
    await until(lambda: busy.capture.total == busy.given)
    assert not reading()
    busy.check()


async def test_no_thread_can_be_started(
    busy: Busy, begun: list[PipeFlood | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipe_flood, "PIPE_FLOOD_PLACES", Places(1))
    busy.pipe.resume()
    busy.flood()  # begun before no more can be
    with monkeypatch.context() as shortage:
        shortage.setattr(_thread, "start_new_thread", refuse_thread)
        await until(lambda: begun, within=30)
    assert begun[0] is None
    await busy.written()
    await until(lambda: busy.capture.total == busy.given)
    await no_thread()  # one could be, meanwhile
    busy.flood()
    await busy.flooded()
    assert begun[0] is not None  # its place was given back


def refuse_thread(*_: object) -> None:
    """What a system does that has no room for one more."""
    raise RuntimeError("can't start new thread")


@pytest.mark.parametrize("when", ["never begins", "begins too late", "runs out of memory"])
async def test_the_loop_reads_for_dead_thread(
    busy: Busy, begun: list[PipeFlood | None], monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    # What a thread does that finds no memory for its first call, or for a later one.
    start, late = _thread.start_new_thread, threading.Event()

    def fail(run: Callable[[], None], arguments: tuple[()]) -> int:
        def begin_late() -> None:
            late.wait()
            run()

        return 0 if when == "never begins" else start(begin_late, arguments)

    def refuse(*_: object) -> None:
        raise MemoryError

    if when != "runs out of memory":
        monkeypatch.setattr(_thread, "start_new_thread", fail)
    monkeypatch.setattr(pipe_flood, "PIPE_FLOOD_PLACES", Places(1))
    if when == "runs out of memory":
        monkeypatch.setattr(PipeFlood, "_run", refuse)
    busy.pipe.resume()
    busy.flood()
    await until(lambda: begun, within=30)
    assert begun[0] is not None
    await busy.written()
    await until(lambda: busy.capture.total == busy.given)
    late.set()
    if when == "never begins":
        assert reading() == 1  # nobody knows that it won't
    else:
        await no_thread()
    busy.check()


async def test_cannot_be_watched_again(busy: Busy, monkeypatch: pytest.MonkeyPatch) -> None:
    # Then nobody would read, and the command would wait for ever.
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    busy.pipe.resume()
    busy.flood()
    await busy.flooded()
    monkeypatch.setattr(asyncio.get_running_loop(), "add_reader", refuse)
    await busy.written()
    await until(lambda: not busy.pipe.open)
    assert busy.pipe.failed is not None


def test_ends_with_its_loop(begun: list[PipeFlood | None]) -> None:
    loop = asyncio.new_event_loop()
    busy = Busy(loop, begun)
    busy.pipe.resume()
    busy.flood(1_000 * SIZE)
    loop.run_until_complete(busy.flooded())
    loop.close()
    patience = time.monotonic() + 10
    while reading() and time.monotonic() < patience:
        time.sleep(0.001)
    assert not reading()
    busy.close()


@pytest.mark.parametrize("limit", [LIMIT, 2_000_000])
async def test_what_a_flood_ends_with(sandbox: Session, limit: int) -> None:
    result = await sandbox.exec("seq 3000000; echo last", output_limit=limit)
    kept = b"".join(b"%d\n" % number for number in range(1, 3_000_001)) + b"last\n"
    head = limit // 4
    assert result.stdout == kept[:head] + kept[head - limit :]
    assert result.stdout_total == len(kept)


async def test_a_flood_that_takes_too_long(sandbox: Session) -> None:
    with pytest.raises(ExecTimeoutError) as caught:
        await sandbox.exec("exec yes", timeout=1.0, output_limit=LIMIT)
    assert set(caught.value.stdout.split()) == {b"y"}
    await no_thread()
