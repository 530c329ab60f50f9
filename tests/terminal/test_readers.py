"""Who reads a terminal: replay, several at once, a slow one; and what is kept when nobody reads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from sandyard import Terminal, UnixLocalSandboxSession
from sandyard.limits import TERMINAL_STREAM_BYTES
from tests.session.host import until
from tests.terminal.screen import Screen, shows, watching

Session = UnixLocalSandboxSession

PIPED = 100_000
"""Bytes that the kernel holds of a terminal's output, and some more."""


def shown(terminal: Terminal) -> int:
    """Bytes that a terminal has shown so far."""
    return terminal.scrollback().total


async def test_attach_replays(session: Session) -> None:
    terminal = await session.terminal("echo one; read line; echo two; read line")
    async with terminal.attach() as view:
        screen = Screen(terminal, view)
        await screen.until("one")
    await terminal.write(b"\n")  # nobody is attached
    await until(lambda: b"two" in terminal.scrollback().data)
    async with terminal.attach() as view, terminal.attach(replay=False) as later:
        await terminal.write(b"\n")
        await terminal.wait()
        first, second = Screen(terminal, view), Screen(terminal, later)
        assert await first.rest() == b"one\r\n\r\ntwo\r\n\r\n" == terminal.scrollback().data
        assert await second.rest() == b"\r\n"
        assert view.dropped == later.dropped == 0
    assert await shows(terminal) == b"one\r\n\r\ntwo\r\n\r\n"  # it has ended, and is still there


async def test_short_command_is_not_watched(session: Session) -> None:
    watched: list[int] = []
    loop = asyncio.get_running_loop()
    add_reader = loop.add_reader

    def noted(fd: int, callback: Callable[..., object], *args: object) -> None:
        watched.append(fd)
        add_reader(fd, callback, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sandyard.process.master.TERMINAL_READ_DELAY_S", 60.0)
        patch.setattr(loop, "add_reader", noted)
        terminal = await session.terminal("echo one")
        assert await terminal.wait() == 0
        assert not watched
        assert terminal.scrollback().data == b"one\r\n"


async def test_attached_before_it_is_read(session: Session) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sandyard.process.master.TERMINAL_READ_DELAY_S", 60.0)
        terminal = await session.terminal("echo one; read line")
        async with terminal, terminal.attach() as view:
            await Screen(terminal, view).until("one")


async def test_slow_reader_holds_it_from_the_start(session: Session) -> None:
    """A moment after which it would be read does not go over the head of who reads slowly."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sandyard.process.master.TERMINAL_READ_DELAY_S", 0.5)
        terminal = await session.terminal("yes")
    async with terminal, terminal.attach():
        await until(lambda: shown(terminal) >= TERMINAL_STREAM_BYTES)
        await asyncio.sleep(0.6)
        assert shown(terminal) < TERMINAL_STREAM_BYTES + 2 * PIPED


async def test_all_readers_get_all(session: Session) -> None:
    terminal = await session.terminal("read line; seq 50000")
    async with terminal.attach() as one, terminal.attach() as two:
        await terminal.write(b"\n")
        seen = await asyncio.gather(Screen(terminal, one).rest(), Screen(terminal, two).rest())
    assert seen[0] == seen[1] == b"\r\n" + b"".join(b"%d\r\n" % n for n in range(1, 50_001))


async def test_slow_reader_makes_it_wait(session: Session) -> None:
    terminal = await session.terminal("head -c 30000000 /dev/zero; echo over")
    async with terminal.attach() as view:
        await until(lambda: shown(terminal) >= TERMINAL_STREAM_BYTES)
        for _ in range(20):
            await session.exec("true")  # it has all the time to go on
        assert shown(terminal) < TERMINAL_STREAM_BYTES + 2 * PIPED
        assert terminal.exit_code is None
        total = 0
        async for chunk in view:
            total += len(chunk)
            if total > 3_000_000:
                break
        assert shown(terminal) < total + TERMINAL_STREAM_BYTES + 2 * PIPED
    await terminal.wait()  # nobody reads any more, and nobody has to wait
    assert shown(terminal) == 30_000_006


async def test_slowest_reader_sets_the_pace(session: Session) -> None:
    terminal = await session.terminal("yes")
    async with terminal, terminal.attach() as fast:
        async with terminal.attach():
            read = 0
            while read < TERMINAL_STREAM_BYTES:  # the other one reads nothing
                read += len(await anext(fast))
            for _ in range(20):
                await session.exec("true")  # it has all the time to go on
            assert shown(terminal) < TERMINAL_STREAM_BYTES + 2 * PIPED
        while read < 10 * TERMINAL_STREAM_BYTES:  # it has left
            read += len(await anext(fast))


async def test_exit_is_told_to_a_slow_reader(session: Session) -> None:
    """The program that was made to wait is ended: what it had shown is read to its end."""
    terminal = await session.terminal("yes", timeout=0.5)
    async with terminal.attach() as view:
        assert await terminal.wait() == -9
        seen = await Screen(terminal, view).rest()
    assert seen.endswith(b"took longer than 0.5 s, and was ended\r\n")
    assert shown(terminal) == len(seen) < TERMINAL_STREAM_BYTES + 3 * PIPED


@pytest.mark.parametrize("kept", [0, 1, 100, 4096, 70_000])
async def test_oldest_is_dropped_and_counted(session: Session, kept: int) -> None:
    whole = b"".join(b"%d\r\n" % number for number in range(1, 30_001))
    terminal = await session.terminal("seq 30000", scrollback=kept)
    await terminal.wait()
    found = terminal.scrollback()
    assert found.data == whole[len(whole) - kept :]
    assert (found.dropped, found.total) == (len(whole) - kept, len(whole))
    async with terminal.attach() as view:
        assert view.dropped == len(whole) - kept
        assert await Screen(terminal, view).rest() == found.data


async def test_reader_may_be_cancelled(session: Session) -> None:
    async with watching(await session.terminal("read line; echo on")) as screen:
        reading = asyncio.create_task(screen.rest())
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await screen.type("\n")
        await screen.until("on")


async def test_yes_costs_no_memory(session: Session) -> None:
    async with await session.terminal("yes", scrollback=4096) as terminal:
        await until(lambda: shown(terminal) > 4_000_000, within=60)
        assert len(terminal.scrollback().data) == 4096
