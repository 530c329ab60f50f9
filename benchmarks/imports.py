"""Owns the cost of ``import sandyard``: time and modules, in new interpreters."""

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
print(time.perf_counter() - began, len(sys.modules))
"""


async def import_rows() -> list[Row]:
    """The time of the import itself, without the interpreter's own start."""
    times: list[float] = []
    modules = 0
    for _ in range(COUNT):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-c", CODE, stdout=asyncio.subprocess.PIPE
        )
        said, _ = await process.communicate()
        took, counted = said.split()
        times.append(float(took) * 1e3)
        modules = int(counted)
    detail = f"lowest {min(times):.0f} ms of {COUNT}"
    return [
        Row("import sandyard", statistics.median(times), 250, detail, unit=" ms"),
        Row("… modules loaded", modules, 350, "of all packages", unit=""),
    ]
