"""Owns the cost of importing Sandyard, alone and with what a program uses: time and modules."""

from __future__ import annotations

import asyncio
import statistics
import sys

from benchmarks.measure import Row

__all__ = ["import_rows"]

COUNT = 9
CODE = """
import sys, time
began = time.perf_counter()
import sandyard
alone = time.perf_counter()
from sandyard import Manifest, UnixLocalSandboxClient
print(alone - began, time.perf_counter() - began, len(sys.modules))
"""


async def import_rows() -> list[Row]:
    """The time of the import itself, without the interpreter's own start.

    Names load when they are first asked for, so that the import alone says little: what a program
    waits for is the client.
    """
    alone: list[float] = []
    whole: list[float] = []
    modules = 0
    for _ in range(COUNT):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-c", CODE, stdout=asyncio.subprocess.PIPE
        )
        said, _ = await process.communicate()
        first, second, counted = said.split()
        alone.append(float(first) * 1e3)
        whole.append(float(second) * 1e3)
        modules = int(counted)
    return [
        Row("import sandyard", statistics.median(alone), 250, _lowest(alone), unit=" ms"),
        Row(
            "… with its client and manifest",
            statistics.median(whole),
            250,
            _lowest(whole),
            unit=" ms",
        ),
        Row("… modules loaded then", modules, 400, "of all packages", unit=""),
    ]


def _lowest(times: list[float]) -> str:
    return f"lowest {min(times):.0f} ms of {COUNT}"
