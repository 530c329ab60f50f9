"""Owns the cost of a background process's log: memory and rate beside reading a bare pipe."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from pathlib import Path

from benchmarks.measure import Row
from sandyard import UnixLocalSandboxClient, UnixLocalSandboxSession

__all__ = ["log_rows"]

SIZE = 1_000_000_000
ROUNDS = 3
COMMAND = ("/usr/bin/head", "-c", str(SIZE), "/dev/zero")


async def log_rows() -> list[Row]:
    """A gigabyte of output, of which a log keeps the usual 16 MiB."""
    client = UnixLocalSandboxClient()
    session = await client.create()
    rates = {"logged": 0.0, "logged and followed": 0.0, "bare pipe": 0.0}
    try:
        async with session:
            await _logged(session)  # what is allocated once
            await asyncio.to_thread(Path("/proc/self/clear_refs").write_text, "5")
            before = _status("VmRSS")
            await _logged(session)
            memory = max(0, _status("VmHWM") - before) / 1e3
            for _ in range(ROUNDS):
                rates["logged"] = max(rates["logged"], await _logged(session))
                followed = await _followed(session)
                rates["logged and followed"] = max(rates["logged and followed"], followed)
                rates["bare pipe"] = max(rates["bare pipe"], await asyncio.to_thread(_bare))
    finally:
        await client.delete(session)
    detail = ", ".join(f"{name} {rate / 1e6:.0f} MB/s" for name, rate in rates.items())
    bare = rates["bare pipe"]
    followed = rates["logged and followed"] / bare
    return [
        Row("1 GB into a log: memory beyond what was there", memory, 8.0, "peak RSS", unit=" MB"),
        Row("… rate, beside reading a bare pipe", rates["logged"] / bare, 0.5, detail, True),
        Row("… rate, while somebody follows", followed, 0.5, "", True),
    ]


async def _logged(session: UnixLocalSandboxSession) -> float:
    began = time.perf_counter()
    process = await session.start_process(*COMMAND, shell=False)
    result = await process.wait()
    took = time.perf_counter() - began
    if result.stdout_total != SIZE:
        raise RuntimeError(f"{result.stdout_total} bytes came")
    await session.remove_process(process)
    return SIZE / took


async def _followed(session: UnixLocalSandboxSession) -> float:
    began, told = time.perf_counter(), 0
    process = await session.start_process(*COMMAND, shell=False)
    async for chunk in process.logs():
        told += len(chunk.data) + chunk.missed
    took = time.perf_counter() - began
    if told != SIZE:
        raise RuntimeError(f"{told} bytes were told of")
    await session.remove_process(process)
    return SIZE / took


def _bare() -> float:
    began = time.perf_counter()
    with subprocess.Popen(COMMAND, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdout is not None
        fd = process.stdout.fileno()
        while os.read(fd, 256 * 1024):
            pass
    return SIZE / (time.perf_counter() - began)


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise RuntimeError(f"no {name} in /proc/self/status")
