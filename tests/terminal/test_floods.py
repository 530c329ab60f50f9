"""Programs that print without a pause, whose terminals a thread reads: every byte, in order, bounded."""

from __future__ import annotations

import _thread  # noqa: PLC2701  # whose start is made to fail
import asyncio
import os
import select
import subprocess
import time
from collections.abc import AsyncIterator

import pytest

from sandyard import Terminal
from sandyard import UnixLocalSandboxClient as Client
from sandyard import UnixLocalSandboxSession as Session
from sandyard.limits import (
    TERMINAL_FLOOD_BYTES,
    TERMINAL_FLOODS,
    TERMINAL_STREAM_BYTES,
    TERMINAL_TURN_BYTES,
)
from sandyard.process.master import TERMINAL_FLOOD_PLACES, Flood
from tests.session.host import POLL_S, until

LINES = 600_000
TEXT = b"".join(b"%d\n" % number for number in range(1, LINES + 1))
COUNT = f"stty -opost; seq {LINES}"
ROOM = 16 * 1024 * 1024


@pytest.fixture
async def session() -> AsyncIterator[Session]:
    client = Client()
    session = await client.create()
    async with session:
        yield session
    await client.delete(session)


def threads() -> int:
    """How many threads read terminals."""
    return TERMINAL_FLOOD_PLACES.taken


async def flooding(session: Session) -> Terminal:
    """A terminal that counts, and that a thread reads; on a busy machine a count may end unseen."""
    for _ in range(20):
        terminal = await session.terminal(COUNT, scrollback=ROOM)
        while terminal.exit_code is None:
            if threads() == 1:
                return terminal
            await asyncio.sleep(POLL_S)
    raise AssertionError("no thread read any of 20 terminals")


async def test_all_is_shown_in_order(session: Session) -> None:
    terminal = await flooding(session)
    assert await terminal.wait() == 0
    assert terminal.scrollback().data == TEXT
    await until(lambda: threads() == 0)


async def test_goes_on_after_silence(session: Session) -> None:
    terminal = await session.terminal(f"{COUNT}; read x; echo $x; {COUNT}", scrollback=ROOM)
    await until(lambda: terminal.scrollback().total == len(TEXT), within=20)
    await until(lambda: threads() == 0)
    await terminal.write(b"go on\r")
    assert await terminal.wait() == 0
    shown = terminal.scrollback().data
    assert shown.startswith(TEXT)
    assert shown.endswith(b"go on\n" + TEXT)


async def test_slow_reader_sets_the_pace(session: Session) -> None:
    terminal = await session.terminal(f"read x; {COUNT}", scrollback=ROOM)
    view, shown, most = terminal.attach(), b"", 0
    async with view:
        await terminal.write(b"\r")
        async for chunk in view:
            shown += chunk
            most = max(most, view.waiting)
            if len(shown) < len(TEXT) // 4:
                await asyncio.sleep(0.02)
    assert shown.endswith(TEXT)
    assert most <= TERMINAL_STREAM_BYTES + max(TERMINAL_FLOOD_BYTES, TERMINAL_TURN_BYTES) * 2


async def test_stalled_loop_bounds_it(session: Session) -> None:
    terminal = await flooding(session)
    before = terminal.scrollback().total
    time.sleep(0.5)  # noqa: ASYNC251  # what is tested
    await asyncio.sleep(0)
    assert terminal.scrollback().total - before <= 3 * TERMINAL_FLOOD_BYTES
    assert await terminal.wait() == 0
    assert terminal.scrollback().data == TEXT


async def test_few_threads_for_many(session: Session) -> None:
    many = [await session.terminal(COUNT, scrollback=ROOM) for _ in range(TERMINAL_FLOODS + 3)]
    waits, most = asyncio.gather(*map(Terminal.wait, many)), 0
    while not waits.done():
        most = max(most, threads())
        await asyncio.sleep(0.001)
    assert 0 < most <= TERMINAL_FLOODS
    assert all(terminal.scrollback().data == TEXT for terminal in many)


async def test_closed_in_the_middle(session: Session) -> None:
    before = len(os.listdir("/proc/self/fd"))
    terminal = await session.terminal("exec yes")
    await until(lambda: threads() == 1, within=20)
    await terminal.close()
    total = terminal.scrollback().total
    await until(lambda: threads() == 0)
    await until(lambda: len(os.listdir("/proc/self/fd")) == before)
    assert terminal.scrollback().total == total


async def test_keys_reach_it(session: Session) -> None:
    terminal = await session.terminal("exec yes")
    await until(lambda: threads() == 1, within=20)
    await terminal.write(b"\x03")
    assert await terminal.wait() == -2


async def test_no_thread_is_no_harm(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(_thread, "start_new_thread", refuse)
    terminal = await session.terminal(COUNT, scrollback=ROOM)
    assert await terminal.wait() == 0
    monkeypatch.undo()
    assert terminal.scrollback().data == TEXT
    assert len(os.listdir("/proc/self/fd")) == before
    await (await flooding(session)).wait()


def test_loop_that_ends_ends_its_thread() -> None:
    master, slave = os.openpty()
    os.set_blocking(master, False)
    loop = asyncio.new_event_loop()  # which nobody runs
    with subprocess.Popen(["yes"], stdout=slave) as writer:
        try:
            flood: Flood | None = None
            for _ in range(50):  # the writer may be away from a busy processor for long
                assert select.select([master], [], [], 10)[0]
                flood = Flood.begin(master, lambda _: None, loop)
                assert flood is not None
                time.sleep(0.1)  # it is full by then, and nobody takes anything
                if threads():
                    break
            assert threads() == 1
            loop.close()
            end = time.monotonic() + 10
            while threads() and time.monotonic() < end:
                time.sleep(0.01)
            assert threads() == 0
            assert flood is not None
            assert flood.over
            assert len(flood.take()) <= TERMINAL_FLOOD_BYTES
        finally:
            loop.close()
            writer.kill()
            os.close(slave)
            os.close(master)
