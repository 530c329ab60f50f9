"""Owns the cost of bulk output: memory and rate beside reading a bare pipe."""

from __future__ import annotations

import asyncio
import os
import subprocess
from functools import partial
from pathlib import Path

from benchmarks.measure import Row, interleaved, shown_rates
from sandyard import UnixLocalSandboxClient, UnixLocalSandboxSession

__all__ = ["output_rows"]

SIZE = 300_000_000
LIMIT = 1024 * 1024
ROUNDS = 15
COMMAND = ("/usr/bin/head", "-c", str(SIZE), "/dev/zero")


async def output_rows() -> list[Row]:
    """300 MB of output of which 1 MiB is kept."""
    client = UnixLocalSandboxClient()
    session = await client.create()
    try:
        async with session:
            memory = await _memory(session)
            subjects = {"confined": partial(_confined, session), "bare pipe": _bare}
            series = await interleaved(subjects, ROUNDS, warm_up=1)
    finally:
        await client.delete(session)
    ratio = series["bare pipe"].median / series["confined"].median
    detail = shown_rates(series, SIZE)
    return [
        Row("300 MB of output: memory beyond what was there", memory, 4.0, "peak RSS", unit=" MB"),
        Row("… rate, beside reading a bare pipe", ratio, 0.8, detail, at_least=True),
    ]


async def _confined(session: UnixLocalSandboxSession) -> None:
    result = await session.exec(*COMMAND, shell=False, output_limit=LIMIT)
    if result.stdout_total != SIZE or len(result.stdout) != LIMIT:
        raise RuntimeError(f"{result.stdout_total} bytes came, {len(result.stdout)} were kept")


async def _bare() -> None:
    await asyncio.to_thread(_read_bare)


def _read_bare() -> None:
    with subprocess.Popen(COMMAND, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdout is not None
        fd = process.stdout.fileno()
        while os.read(fd, 256 * 1024):
            pass


async def _memory(session: UnixLocalSandboxSession) -> float:
    await session.exec(*COMMAND, shell=False, output_limit=LIMIT)  # what is allocated once
    await asyncio.to_thread(Path("/proc/self/clear_refs").write_text, "5")  # resets the peak
    before = _status("VmRSS")
    await session.exec(*COMMAND, shell=False, output_limit=LIMIT)
    return max(0, _status("VmHWM") - before) / 1e3


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise RuntimeError(f"no {name} in /proc/self/status")
