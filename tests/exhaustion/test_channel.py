"""The channel to init is full, or nobody reads it for long: nothing is lost, and all are answered."""

from __future__ import annotations

import array
import asyncio
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from sandyard import ExecTimeoutError, ExecTransportError, ResourceLimitError, SandboxError
from sandyard import UnixLocalSandboxSession as Session
from sandyard.process.budget import descriptor_budget
from tests.escape.attacks import read_prelude
from tests.escape.test_shared import FLIGHT
from tests.exhaustion.shortage import count_descriptors, many_descriptors
from tests.house.leaks import list_children
from tests.session.host import (
    find_init,
    find_survivors,
    make_token,
    name_of,
    names_in,
    root_of,
    until,
)

STALL_S = 3.0
"""Seconds that the host's loop stands still: far more than anything waits for."""

MORE_THAN_FIT = 1000
"""Events, or requests, that the channel's buffers don't hold: some 280 of either fit."""


@pytest.fixture(autouse=True)
def enough_descriptors() -> Iterator[None]:
    """The budget lets all of them run at once."""
    with many_descriptors(MORE_THAN_FIT * 6 * 2) as enough:
        if not enough:
            pytest.skip("the hard limit on open files leaves no room for so many commands")
        yield


def wait_still(condition: Callable[[], object], within: float = 40) -> None:
    """Wait without letting the loop turn."""
    end = time.monotonic() + within
    while not condition():
        assert time.monotonic() < end, f"not so within {within} s"
        time.sleep(0.01)


def no_command_runs(init: int) -> bool:
    """Whether init has no keeper with a child."""
    return not any(list(list_children(keeper)) for keeper in list_children(init))


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process that does nothing for the length of a block."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def send_all(session: Session, count: int, text: str) -> list[asyncio.Task[bytes]]:
    """Send commands off; @ in the text becomes the number of each."""

    async def run(number: int) -> bytes:
        return (await session.exec(text.replace("@", str(number)), timeout=50)).stdout

    tasks = [asyncio.create_task(run(number)) for number in range(count)]
    await asyncio.sleep(0)  # each goes as far as it can without waiting
    return tasks


@pytest.mark.parametrize("count", [200, MORE_THAN_FIT])
async def test_stalled_loop_loses_nothing(session: Session, count: int) -> None:
    await session.exec("true")
    before, root, init = count_descriptors(), root_of(session), find_init()
    began = time.monotonic()
    tasks = await send_all(session, count, "echo out @; echo err >&2; : > ended-@")

    def stall() -> None:
        wait_still(lambda: len(names_in(root)) >= 100)  # more may not fit before a busy init reads
        time.sleep(max(0.0, STALL_S - (time.monotonic() - began)))

    asyncio.get_running_loop().call_soon(stall)
    outputs = await asyncio.gather(*tasks)
    assert time.monotonic() - began >= STALL_S
    assert outputs == [b"out %d\n" % number for number in range(count)]
    assert names_in(root) == sorted(f"ended-{number}" for number in range(count))
    assert no_command_runs(init)
    assert (count_descriptors(), descriptor_budget.used) == (before, 0)


async def test_stalled_loop_blocks_nobody(session: Session) -> None:
    # All in one turn of the loop, which therefore reads nothing between: so many commands end that
    # their events don't fit, then one more is sent, and runs.
    await session.exec("true")
    root, init = root_of(session), find_init()
    tasks = await send_all(session, 125, ": > one-@; sleep 0.5; : > ended-one-@")
    # So many requests would not fit at once: init has to have heard the first of them.
    wait_still(lambda: len(names_in(root)) == 125)
    tasks += await send_all(session, 125, ": > two-@; sleep 0.5; : > ended-two-@")
    loop, reached = asyncio.get_running_loop(), list[str]()

    def wait_until(what: str, condition: Callable[[], object]) -> None:
        wait_still(condition)
        reached.append(what)  # what is raised here would only be logged

    loop.call_soon(wait_until, "all have ended", lambda: len(names_in(root)) == 500)
    more = [asyncio.create_task(session.exec(": > more", timeout=50)) for _ in range(20)]
    loop.call_soon(wait_until, "one more runs", lambda: "more" in names_in(root))
    await asyncio.gather(*tasks, *more)
    assert reached == ["all have ended", "one more runs"]
    assert name_of(init) == "sandyard-init"
    assert (await session.exec("echo on")).stdout == b"on\n"


async def test_stopped_init_answers_later(session: Session) -> None:
    await session.exec("true")
    before = count_descriptors()
    with stopped(find_init()):
        tasks = await send_all(session, MORE_THAN_FIT, "echo @")
        # The channel is full, and stays so.
        await asyncio.sleep(0.1)
        assert not any(task.done() for task in tasks)
        assert descriptor_budget.used == 6 * MORE_THAN_FIT
    assert await asyncio.gather(*tasks) == [b"%d\n" % number for number in range(MORE_THAN_FIT)]
    assert (count_descriptors(), descriptor_budget.used) == (before, 0)


async def test_stopped_init_and_cancelling(session: Session) -> None:
    await session.exec("true")
    before, token = count_descriptors(), make_token()
    with stopped(find_init()):
        tasks = await send_all(session, MORE_THAN_FIT, f"sleep {token}")
        for task in tasks:
            task.cancel()
        await asyncio.sleep(0.1)
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert Counter(map(type, outcomes)) == {asyncio.CancelledError: MORE_THAN_FIT}
    # The calls gave up waiting for a first process that stood still; what they asked of it holds.
    await until(lambda: not find_survivors(token), within=30)
    assert (await session.exec("echo on")).stdout == b"on\n"
    assert (count_descriptors(), descriptor_budget.used) == (before, 0)


async def test_timeout_of_a_stopped_init(session: Session) -> None:
    await session.exec("true")
    with stopped(find_init()), pytest.raises(ExecTimeoutError) as caught:
        await session.exec("echo on", timeout=0.2)
    assert caught.value.context["still_running"]
    assert (await session.exec("echo on")).stdout == b"on\n"


async def test_timeout_in_a_full_channel(session: Session) -> None:
    await session.exec("true")
    with stopped(find_init()):
        tasks = await send_all(session, MORE_THAN_FIT, "true")
        waiting = asyncio.create_task(session.exec("true", timeout=0.2))
        done, _ = await asyncio.wait([waiting], timeout=5)
    await asyncio.gather(*tasks)
    with pytest.raises(SandboxError):
        await waiting
    assert done


# --- descriptors on their way ----------------------------------------------------------------------


@contextmanager
def flying_descriptors() -> Iterator[Callable[[], None]]:
    """As many descriptors of this user are on their way as may be; gives what lets them land."""
    pairs: list[socket.socket] = []

    def land() -> None:
        while pairs:
            pairs.pop().close()

    some = array.array("i", [0] * 250)
    try:
        while True:
            pairs += socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
            for _ in range(8):
                rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, some)]
                pairs[-1].sendmsg([b"x"], rights, socket.MSG_DONTWAIT)
    except OSError:
        some = array.array("i", [0])  # refused as a whole: one by one, to the last
        try:
            while True:
                rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, some)]
                pairs[-1].sendmsg([b"x"], rights, socket.MSG_DONTWAIT)
        except OSError:
            pass
    try:
        yield land
    finally:
        land()


@pytest.mark.user
async def test_too_many_in_flight(session: Session) -> None:
    await session.exec("true")
    before = count_descriptors()
    with flying_descriptors():
        with pytest.raises(ResourceLimitError) as caught:
            await session.exec("true", stdin=b"")
        assert (await session.exec("echo on")).stdout == b"on\n"  # which needs none
        assert caught.value.retryable
        assert descriptor_budget.used == 0
    assert (await session.exec("echo on")).stdout == b"on\n"
    assert count_descriptors() == before


@pytest.mark.user
async def test_in_flight_for_a_moment(session: Session) -> None:
    await session.exec("true")
    with flying_descriptors() as land:
        asyncio.get_running_loop().call_later(0.2, land)
        assert (await session.exec("cat", stdin=b"on")).stdout == b"on"


async def test_in_flight_from_inside(session: Session) -> None:
    source = f"{read_prelude()}\n{FLIGHT}\ntell('holds it')\nimport signal\nsignal.pause()"
    async with session.stream("python3", "-I", "-c", source, shell=False, timeout=40) as running:
        said = b""
        while b"holds it" not in said:
            said += (await anext(running)).data
        try:
            result = await session.exec("echo on", timeout=20)
        except (ResourceLimitError, ExecTransportError):
            assert await session.running()
        else:
            assert result.stdout == b"on\n"
    assert (await session.exec("echo on", timeout=20)).stdout == b"on\n"
