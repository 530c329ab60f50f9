"""Owns the cost of the file verbs: each beside the bare system calls, or the tool, that do the same."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from benchmarks.measure import Row, Subject, interleaved, shown
from sandyard import UnixLocalSandboxClient, UnixLocalSandboxSession

__all__ = ["file_rows"]

SMALL = b"x" * 1_000
ENTRIES = 10_000
SEARCHED = 20_000
PER_DIRECTORY = 200
LINES = b"some words in a line of text\n" * 20
NEEDLE = b"the needle is here\n"
COUNT = 300
FEW = 15
PAUSE_S = 0.0005
"""How often the loop is asked whether it is free."""


async def file_rows() -> list[Row]:
    """Small files, long listings, searches, and what of it the loop feels."""
    client = UnixLocalSandboxClient()
    session = await client.create()
    try:
        async with session:
            await asyncio.to_thread(_fill, session.state.manifest.root)
            return [
                *await _small_files(session),
                await _listing(session),
                await _search(session),
                await _blocking(session),
            ]
    finally:
        await client.delete(session)


def _fill(root: str) -> None:
    os.mkdir(f"{root}/many")
    for number in range(ENTRIES):
        os.close(os.open(f"{root}/many/f{number}", os.O_CREAT | os.O_WRONLY))
    for number in range(SEARCHED):
        directory = f"{root}/search/d{number // PER_DIRECTORY}"
        if number % PER_DIRECTORY == 0:
            os.makedirs(directory)
        with open(f"{directory}/f{number}", "wb") as file:
            file.write(LINES + NEEDLE if number % 1_000 == 0 else LINES)
    with open(f"{root}/small", "wb") as file:
        file.write(SMALL)


async def _small_files(session: UnixLocalSandboxSession) -> list[Row]:
    """Beside the same system calls, done in a thread as anybody does who must not block a loop."""
    root = session.state.manifest.root

    def bare_read() -> None:
        opened = os.open(f"{root}/small", os.O_RDONLY | os.O_CLOEXEC)
        _expect(os.read(opened, 2_000), SMALL)
        os.close(opened)

    def bare_write() -> None:
        opened = os.open(f"{root}/.temporary", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        os.write(opened, SMALL)
        os.close(opened)
        os.rename(f"{root}/.temporary", f"{root}/bare")

    async def read() -> None:
        _expect(await session.read_range("small", size=2_000), SMALL)

    subjects: dict[str, Subject] = {
        "read": read,
        "bare read": lambda: asyncio.to_thread(bare_read),
        "write": lambda: session.write("ours", SMALL),
        "bare write": lambda: asyncio.to_thread(bare_write),
    }
    series = await interleaved(subjects, COUNT)
    return [
        Row(
            "small read, beside bare calls in a thread",
            series["read"].median / series["bare read"].median,
            5,
            shown(series),
        ),
        Row(
            "small atomic write, beside bare calls in a thread",
            series["write"].median / series["bare write"].median,
            3,
            shown(series),
        ),
    ]


async def _listing(session: UnixLocalSandboxSession) -> Row:
    root = session.state.manifest.root

    def bare() -> None:
        with os.scandir(f"{root}/many") as entries:
            found = [(entry.name, os.lstat(entry.path)) for entry in entries]
        _expect(len(found), ENTRIES)

    async def ours() -> None:
        _expect(len(await session.ls("many")), ENTRIES)

    subjects: dict[str, Subject] = {"ls": ours, "bare": lambda: asyncio.to_thread(bare)}
    series = await interleaved(subjects, FEW)
    ratio = series["ls"].median / series["bare"].median
    return Row("ls of 10,000 entries, beside scandir and lstat", ratio, 2, shown(series))


async def _search(session: UnixLocalSandboxSession) -> Row:
    root = session.state.manifest.root

    async def ours() -> None:
        _expect(len((await session.grep("needle", "search")).matches), SEARCHED // 1_000)

    async def bare() -> None:
        process = await asyncio.create_subprocess_exec(
            *("grep", "-r", "-F", "needle", f"{root}/search"), stdout=asyncio.subprocess.PIPE
        )
        _expect(len((await process.communicate())[0].splitlines()), SEARCHED // 1_000)

    series = await interleaved({"grep": ours, "bare": bare}, FEW)
    ratio = series["grep"].median / series["bare"].median
    return Row("grep over 20,000 files, beside grep -r", ratio, 3, shown(series))


async def _blocking(session: UnixLocalSandboxSession) -> Row:
    """How late the loop is while files of 20 MB are written, read and copied."""
    data = bytes(20_000_000)
    async with _lateness() as idle:
        await asyncio.sleep(0.5)
    async with _lateness() as late:
        for _ in range(5):
            await session.write("large", data)
            async for _ in session.read_chunks("large"):
                pass
            await session.copy("large", "twin")
            await session.rm("twin")
    quiet, busy = _p99(idle), _p99(late)
    detail = f"p99 {busy * 1e3:.2f} ms, of an idle loop {quiet * 1e3:.2f} ms, {len(late)} samples"
    return Row("lateness of the loop during file work", (busy - quiet) * 1e3, 1, detail, unit="ms")


@asynccontextmanager
async def _lateness() -> AsyncIterator[list[float]]:
    samples: list[float] = []

    async def ask() -> None:
        while True:
            begun = time.perf_counter()
            await asyncio.sleep(PAUSE_S)
            samples.append(time.perf_counter() - begun - PAUSE_S)

    asking = asyncio.create_task(ask())
    try:
        yield samples
    finally:
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)


def _p99(samples: list[float]) -> float:
    return sorted(samples)[len(samples) * 99 // 100]


def _expect(found: object, wanted: object) -> None:
    if found != wanted:
        raise RuntimeError("the measured work did something else")
