"""Owns the cost of a large host program: a command beside 2 GB of objects, and without them."""

from __future__ import annotations

import asyncio
import random
import resource
import sys
import time
from pathlib import Path

from benchmarks.measure import WARM_UP, Row, Series, shown
from benchmarks.peers import TRUE
from sandyard import UnixLocalSandboxClient

__all__ = ["heap_rows"]

HEAP_BYTES = 2 * 1024**3
NEEDED_BYTES = 3 * 1024**3
"""What the machine must have free: the heap, the interpreters, and air."""

ROUNDS = 40
PER_ROUND = 10


async def heap_rows() -> list[Row]:
    """Two programs, one of them large, that run the same commands by turns."""
    free = _available_bytes()
    if free < NEEDED_BYTES:
        print(f"heap: left out, {free / 1e9:.1f} GB of memory are available and 3.2 are needed")
        return []
    small, large = await _start("0"), await _start(str(HEAP_BYTES))
    series = {"without": Series(), "with 2 GB": Series()}
    try:
        resident = _resident_bytes(large.pid)
        turns = [("without", small), ("with 2 GB", large)] * ROUNDS
        random.shuffle(turns)  # so that drift falls on both alike
        for name, program in turns:
            series[name].wall += await _ask(program)
    finally:
        for program in (small, large):
            assert program.stdin is not None
            program.stdin.close()  # the end of its input is its own
            await program.wait()
    ratio = series["with 2 GB"].median / series["without"].median
    detail = f"{shown(series)}; it holds {resident / 1e9:.1f} GB"
    return [Row("exec /bin/true from a program with 2 GB of objects", ratio, 1.5, detail)]


async def _start(size: str) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.heap", size, stdin=pipe, stdout=pipe
    )
    await _line(program)  # filled and warm
    return program


async def _ask(program: asyncio.subprocess.Process) -> list[float]:
    assert program.stdin is not None
    program.stdin.write(b"go\n")
    return [float(word) for word in (await _line(program)).split()]


async def _line(program: asyncio.subprocess.Process) -> bytes:
    assert program.stdout is not None
    line = await program.stdout.readline()
    assert line, "the measured program ended"
    return line


# --- the measured program -------------------------------------------------------------------------


async def _serve(size: int) -> None:
    held = _fill(size)
    client = UnixLocalSandboxClient()
    session = await client.create()
    async with session:
        for _ in range(WARM_UP):
            await session.exec(TRUE, shell=False)
        print(f"holds {len(held)} lists", flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            times = []
            for _ in range(PER_ROUND):
                began = time.perf_counter()
                await session.exec(TRUE, shell=False)
                times.append(time.perf_counter() - began)
            print(*times, flush=True)
    await client.delete(session)


def _fill(size: int) -> list[list[object]]:
    """Real objects, as a program has them: the collector knows them, and every page is written."""
    held: list[list[object]] = []
    while _resident_bytes("self") < size:
        held += ([number, str(number), (number, None), bytes(700)] for number in range(20_000))
    return held


def _resident_bytes(pid: int | str) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


def _available_bytes() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))
