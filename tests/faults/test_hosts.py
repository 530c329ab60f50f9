"""Hosts of strange habits, and hosts whose sandbox is stopped or killed from outside.

Not here, since it is in tests/session: a killed init or outer process with commands pending, the
death of the host by each signal, workers that outlive a killed host, SIGCHLD ignored, the thread of
the start that ends (test_death.py); loops in several threads, calls from another loop, a session
made on one loop and used on the next (test_life.py); too few descriptors (test_short.py, test_many.py).
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from sandyard import (
    ExecTimeoutError,
    ExecTransportError,
    SandboxError,
    UnixLocalSandboxClient,
    UnixLocalSandboxSession,
)
from tests.faults.programs import run_python
from tests.house.leaks import list_children
from tests.session.host import find_init, find_survivors, make_token, until

Session = UnixLocalSandboxSession


def list_habits() -> list[object]:
    habits: list[object] = [
        "plain",
        "faulthandler",
        "reaping",
        "thread",
        "forked workers",
        "workers that end",
        "debugger",
        "daemon",
        "small files",
        pytest.param(
            "uvloop", marks=pytest.mark.skipif(not find_spec("uvloop"), reason="needs uvloop")
        ),
        pytest.param(
            "eager tasks",
            marks=pytest.mark.skipif(sys.version_info < (3, 12), reason="needs Python 3.12"),
        ),
        pytest.param("few processes", marks=pytest.mark.user),  # root is exempt
    ]
    return [*habits, "little memory", "two loops"]


@pytest.mark.plain
@pytest.mark.parametrize("habit", list_habits())
def test_any_host_will_do(habit: str, tmp_path: Path) -> None:
    assert run_python(["-m", "tests.faults.lives", habit], tmp_path) == "well"
    assert os.listdir(tmp_path / "tmp") == []


# --- a sandbox that is stopped or killed from outside ---------------------------------------------


@pytest.fixture
async def session() -> AsyncIterator[Session]:
    client = UnixLocalSandboxClient()
    made = await client.create()
    await made.start()
    try:
        yield made
    finally:
        await client.delete(made)


def find_outer() -> int:
    init = find_init()
    return next(pid for pid in list_children(os.getpid()) if init in list_children(pid))


async def read_all(session: Session, command: str) -> None:
    async with session.stream(command) as stream:
        async for _ in stream:
            pass


async def never() -> AsyncIterator[bytes]:
    yield b"some"
    await asyncio.get_running_loop().create_future()


@pytest.mark.parametrize("find_victim", [find_init, find_outer])
async def test_every_call_learns_of_the_end(
    session: Session, find_victim: Callable[[], int]
) -> None:
    token = make_token()
    calls: list[asyncio.Task[object]] = [
        asyncio.create_task(session.exec(f"sleep {token}")),
        asyncio.create_task(session.exec(f"sleep {token}", timeout=60, stdin=never())),
        asyncio.create_task(session.exec(f"sleep {token}", stdin=bytes(2_000_000))),
        asyncio.create_task(session.exec(f"setsid sleep {token} & yes")),
        asyncio.create_task(read_all(session, f"yes & sleep {token}")),
    ]
    await until(lambda: len(find_survivors(token)) >= len(calls))
    os.kill(find_victim(), signal.SIGKILL)
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [ExecTransportError] * len(calls)
    assert not await session.running()
    for late in (session.exec("true"), read_all(session, "true")):
        with pytest.raises(ExecTransportError):
            await late
    await until(lambda: not find_survivors(token))
    await session.write("file", b"still")
    await session.shutdown()
    await session.start()
    assert (await session.exec("cat file")).stdout == b"still"


async def test_stopped_init_keeps_no_caller(session: Session) -> None:
    token = make_token()
    init = find_init()
    await session.exec("true")
    os.kill(init, signal.SIGSTOP)
    with pytest.raises(ExecTimeoutError) as caught:
        await session.exec(f"sleep {token}", timeout=0.2)
    assert caught.value.context["still_running"] is True
    cancelled = asyncio.create_task(session.exec(f"sleep {token}"))
    await asyncio.sleep(0)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    os.kill(init, signal.SIGCONT)
    assert (await session.exec("echo on")).stdout == b"on\n"
    await until(lambda: not find_survivors(token))


@pytest.mark.parametrize("find_victim", [find_init, find_outer])
async def test_stopped_sandbox_is_deleted(session: Session, find_victim: Callable[[], int]) -> None:
    token = make_token()
    await session.exec(f"setsid sleep {token} & true")
    pending = asyncio.create_task(session.exec(f"sleep {token}"))
    await until(lambda: len(find_survivors(token)) >= 2)
    os.kill(find_victim(), signal.SIGSTOP)
    await session.aclose()
    with pytest.raises(ExecTransportError):
        await pending
    await until(lambda: not find_survivors(token))
    assert not await session.running()


async def test_calls_that_wait_for_room(session: Session) -> None:
    large = "x" * 20_000  # which travels in the datagram
    init = find_init()
    await session.exec("true")
    os.kill(init, signal.SIGSTOP)
    calls = [
        asyncio.create_task(session.exec("echo", large, shell=False, timeout=60)) for _ in range(80)
    ]
    await asyncio.sleep(0)  # each has gone as far as it can
    await asyncio.sleep(0)
    os.kill(init, signal.SIGKILL)
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {ExecTransportError}
    assert all(isinstance(outcome, SandboxError) for outcome in outcomes)
