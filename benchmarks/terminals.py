"""Owns the cost of terminals: beside a bare pty, beside ``exec``, and of a thousand that idle."""

from __future__ import annotations

import asyncio
import os
import pty
import resource
import statistics
import subprocess
from functools import partial
from pathlib import Path

from benchmarks.measure import Cleaning, Row, interleaved, shown, shown_rates
from sandyard import Terminal, UnixLocalSandboxClient, UnixLocalSandboxSession

__all__ = ["terminal_rows"]

SIZE = 16_000_000
BULK_ROUNDS = 15
STARTS = 100
ECHOES = 300
IDLE = 1_000
COMMANDS = 100
LEAVE_S = 5.0
"""After which the processes that kept them have left as well."""

READ_BYTES = 64 * 1024
BULK = ("/usr/bin/head", "-c", str(SIZE), "/dev/zero")


async def terminal_rows() -> list[Row]:
    """What a terminal costs beside what it replaces."""
    client = UnixLocalSandboxClient()
    session = await client.create()
    try:
        async with session:
            return [
                await _throughput(session),
                await _echo(session),
                await _starts(session),
                *await _idle(session),
            ]
    finally:
        await client.delete(session)


# --- bulk output ------------------------------------------------------------------------------------


async def _throughput(session: UnixLocalSandboxSession) -> Row:
    subjects = {"confined": partial(_print_confined, session), "bare": _print_bare}
    series = await interleaved(subjects, BULK_ROUNDS, warm_up=1)
    ratio = series["bare"].median / series["confined"].median
    detail = shown_rates(series, SIZE)
    return Row("terminal's output, beside a bare pty's reader", ratio, 0.9, detail, at_least=True)


async def _print_confined(session: UnixLocalSandboxSession) -> None:
    terminal = await session.terminal(*BULK, shell=False, scrollback=READ_BYTES)
    await terminal.wait()
    if terminal.scrollback().total != SIZE:
        raise RuntimeError(f"{terminal.scrollback().total} bytes came")


async def _print_bare() -> None:
    await asyncio.to_thread(_read_bare)


def _read_bare() -> None:
    master, slave = pty.openpty()
    try:
        with subprocess.Popen(BULK, stdout=slave) as process:
            got = 0
            while got < SIZE:
                got += len(os.read(master, READ_BYTES))
            process.wait()
    finally:
        os.close(slave)  # not before: the kernel might drop the last that was written
        os.close(master)


# --- keystrokes -------------------------------------------------------------------------------------


async def _echo(session: UnixLocalSandboxSession) -> Row:
    """A key until it is shown, by the kernel's echo, both read by the same loop."""
    master, slave = pty.openpty()
    os.set_blocking(master, False)
    terminal = await session.terminal("exec sleep 1000")
    async with terminal, terminal.attach() as view:

        async def confined() -> None:
            await terminal.write(b"x")
            await anext(view)

        async def bare() -> None:
            loop = asyncio.get_running_loop()
            ready = loop.create_future()
            os.write(master, b"x")
            loop.add_reader(master, ready.set_result, None)
            await ready
            loop.remove_reader(master)
            os.read(master, READ_BYTES)

        try:
            series = await interleaved({"confined": confined, "bare": bare}, ECHOES)
        finally:
            os.close(master)
            os.close(slave)
    middle = series["confined"].median * 1e3
    return Row("a key until its echo", middle, 2.0, shown(series), unit=" ms")


# --- starts -----------------------------------------------------------------------------------------


async def _starts(session: UnixLocalSandboxSession) -> Row:
    async def terminal() -> None:
        await (await session.terminal("/bin/true", shell=False)).wait()

    async def command() -> None:
        await session.exec("/bin/true", shell=False)

    series = await interleaved({"terminal": terminal, "exec": command}, STARTS)
    ratio = series["terminal"].median / series["exec"].median
    return Row('terminal("/bin/true") to its exit, beside exec', ratio, 1.2, shown(series))


# --- many that idle ---------------------------------------------------------------------------------


async def _idle(session: UnixLocalSandboxSession) -> list[Row]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * IDLE if hard == resource.RLIM_INFINITY else min(4 * IDLE, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    try:
        return await _measure_idle(session)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def _measure_idle(session: UnixLocalSandboxSession) -> list[Row]:
    """The machine's own pace changes in the seconds that they take to start: alone is before and after."""
    times = await _exec_times(session)
    before = _own_memory()
    terminals = [await session.terminal("/bin/cat", shell=False) for _ in range(IDLE)]
    memory = (_own_memory() - before) / IDLE
    among = statistics.median(await _exec_times(session))
    await asyncio.gather(*map(Terminal.close, terminals))
    await asyncio.sleep(LEAVE_S)
    alone = statistics.median(times + await _exec_times(session))
    detail = f"alone {alone * 1e3:.2f} ms, among them {among * 1e3:.2f} ms"
    return [
        Row(f"{IDLE} idle terminals: memory of ours for each", memory, 64.0, "RSS", unit=" KB"),
        Row("… exec beside them, beside exec alone", among / alone, 1.1, detail),
    ]


async def _exec_times(session: UnixLocalSandboxSession) -> list[float]:
    async def run() -> Cleaning | None:
        await session.exec("/bin/true", shell=False)
        return None

    return (await interleaved({"exec": partial(run)}, COMMANDS))["exec"].wall


def _own_memory() -> int:
    """Resident kilobytes of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise RuntimeError("no VmRSS in /proc/self/status")
