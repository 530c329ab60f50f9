"""Owns the cost of a background process's log: memory and rate beside reading a bare pipe."""

from __future__ import annotations

import asyncio
import os
import subprocess
from functools import partial
from pathlib import Path

from benchmarks.measure import Cleaning, Row, Subject, interleaved, shown_rates
from sandyard import UnixLocalSandboxClient, UnixLocalSandboxSession

__all__ = ["log_rows"]

SIZE = 1_000_000_000
ROUNDS = 5
COMMAND = ("/usr/bin/head", "-c", str(SIZE), "/dev/zero")


async def log_rows() -> list[Row]:
    """A gigabyte of output, of which a log keeps the usual 16 MiB."""
    client = UnixLocalSandboxClient()
    session = await client.create()
    try:
        async with session:
            await (await _logged(session))()  # what is allocated once
            await asyncio.to_thread(Path("/proc/self/clear_refs").write_text, "5")
            before = _status("VmRSS")
            await (await _logged(session))()
            memory = max(0, _status("VmHWM") - before) / 1e3
            subjects: dict[str, Subject] = {
                "logged": partial(_logged, session),
                "logged and followed": partial(_followed, session),
                "bare pipe": _bare,
            }
            series = await interleaved(subjects, ROUNDS, warm_up=1)
    finally:
        await client.delete(session)
    bare, detail = series["bare pipe"].median, shown_rates(series, SIZE)
    logged, followed = (bare / series[each].median for each in ("logged", "logged and followed"))
    return [
        Row("1 GB into a log: memory beyond what was there", memory, 8.0, "peak RSS", unit=" MB"),
        Row("… rate, beside reading a bare pipe", logged, 0.5, detail, True),
        Row("… rate, while somebody follows", followed, 0.5, "", True),
    ]


async def _logged(session: UnixLocalSandboxSession) -> Cleaning:
    process = await session.start_process(*COMMAND, shell=False)
    result = await process.wait()
    if result.stdout_total != SIZE:
        raise RuntimeError(f"{result.stdout_total} bytes came")
    return partial(session.remove_process, process)


async def _followed(session: UnixLocalSandboxSession) -> Cleaning:
    told = 0
    process = await session.start_process(*COMMAND, shell=False)
    async for chunk in process.logs():
        told += len(chunk.data) + chunk.missed
    if told != SIZE:
        raise RuntimeError(f"{told} bytes were told of")
    return partial(session.remove_process, process)


async def _bare() -> None:
    await asyncio.to_thread(_read_bare)


def _read_bare() -> None:
    with subprocess.Popen(COMMAND, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdout is not None
        fd = process.stdout.fileno()
        while os.read(fd, 256 * 1024):
            pass


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise RuntimeError(f"no {name} in /proc/self/status")
