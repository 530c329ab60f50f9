"""Owns how long an end takes: a hundred daemons, from the call or the kill until all are dead."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from benchmarks.measure import Row
from sandyard import UnixLocalSandboxClient, UnixLocalSandboxSession

__all__ = ["ends_rows"]

DAEMONS = 100
ROUNDS = 10
BAR_MS = 100
SECONDS = "7654321.5"
"""What the daemons sleep for: a number by which they are recognised."""

# Each in a session of its own, a third of them orphans of a second fork.
START = (
    f"for i in $(seq {DAEMONS}); do "
    f"if [ $((i % 3)) = 0 ]; then (setsid sleep {SECONDS} &); else setsid sleep {SECONDS} & fi; "
    f"done; until [ $(pgrep -c sleep) -ge {DAEMONS} ]; do :; done"
)


async def ends_rows() -> list[Row]:
    """Three ends: the session's, the command's, and that of the program that holds them."""
    ways: dict[str, Callable[[], Awaitable[float]]] = {
        "close of the session": _close,
        "cancellation of the command": _cancel,
        "SIGKILL of the host program": _kill,
    }
    rows = []
    for name, way in ways.items():
        times = sorted([await way() * 1e3 for _ in range(ROUNDS)])
        detail = f"median {statistics.median(times):.1f}, least {times[0]:.1f} ms, {ROUNDS} rounds"
        what = f"{name}, until {DAEMONS} setsid daemons are dead (longest)"
        rows.append(Row(what, times[-1], BAR_MS, detail, unit=" ms"))
    return rows


async def _close() -> float:
    client = UnixLocalSandboxClient()
    async with await client.create() as session:
        await session.exec(START)
        took = await _timed(session.aclose)
    await client.delete(session)
    return took


async def _cancel() -> float:
    client = UnixLocalSandboxClient()
    async with await client.create() as session:
        task = asyncio.create_task(session.exec(f"{START}; touch ready; exec sleep {SECONDS}"))
        await _until_begun(session)

        async def end() -> None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

        took = await _timed(end)
    await client.delete(session)
    return took


async def _until_begun(session: UnixLocalSandboxSession) -> None:
    while (await session.exec("test -e ready")).exit_code != 0:
        pass  # a command takes its time


async def _kill() -> float:
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.ends", stdout=asyncio.subprocess.PIPE
    )
    assert program.stdout is not None
    assert await program.stdout.readline() == b"ready\n"

    async def end() -> None:
        program.send_signal(signal.SIGKILL)

    took = await _timed(end)
    await program.wait()
    return took


async def _timed(end: Callable[[], Awaitable[None]]) -> float:
    """Seconds from the call until the last daemon is dead."""
    daemons = _open_daemons()
    try:
        assert len(daemons) >= DAEMONS, f"{len(daemons)} daemons"
        began = time.perf_counter()
        await end()
        await asyncio.to_thread(_wait_dead, daemons)
        return time.perf_counter() - began
    finally:
        for fd in daemons:
            os.close(fd)


def _open_daemons() -> list[int]:
    """A pidfd of each daemon, which becomes readable when it has died."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        with suppress(OSError), open(f"/proc/{name}/cmdline", "rb") as words:
            if words.read() == b"sleep\0" + SECONDS.encode() + b"\0":
                found.append(os.pidfd_open(int(name)))
    return found


def _wait_dead(daemons: list[int]) -> None:
    for fd in daemons:
        select.select([fd], [], [])


# --- the program that is killed -------------------------------------------------------------------


async def _hold() -> None:
    session = await UnixLocalSandboxClient().create()
    async with session:
        await session.exec(START)
        print("ready", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_hold())
