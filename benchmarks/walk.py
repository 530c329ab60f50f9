"""Owns the cost of the wall on file work: a walk over many files, inside and outside."""

from __future__ import annotations

import asyncio
import os

from benchmarks.measure import Row, interleaved, shown
from sandyard import UnixLocalSandboxClient

__all__ = ["walk_rows"]

FILES = 60_000
PER_DIRECTORY = 300
COUNT = 5
SCRIPT = "find . -type f -exec stat -c %s:%Y {} + | wc -l"


async def walk_rows() -> list[Row]:
    """``find`` and ``stat`` over 60,000 files."""
    client = UnixLocalSandboxClient()
    session = await client.create()
    root = session.state.manifest.root
    await asyncio.to_thread(_fill, root)
    try:
        async with session:

            async def inside() -> None:
                _check((await session.exec(SCRIPT)).stdout)

            async def outside() -> None:
                process = await asyncio.create_subprocess_exec(
                    "sh", "-c", SCRIPT, cwd=root, stdout=asyncio.subprocess.PIPE
                )
                _check((await process.communicate())[0])

            series = await interleaved({"inside": inside, "outside": outside}, COUNT)
    finally:
        await client.delete(session)
    ratio = series["inside"].median / series["outside"].median
    return [Row("find + stat over 60,000 files, beside outside", ratio, 1.1, shown(series))]


def _fill(root: str) -> None:
    for first in range(0, FILES, PER_DIRECTORY):
        directory = os.path.join(root, f"d{first}")
        os.mkdir(directory)
        for number in range(PER_DIRECTORY):
            os.close(os.open(os.path.join(directory, f"f{number}"), os.O_CREAT | os.O_WRONLY))


def _check(counted: bytes) -> None:
    if int(counted) != FILES:
        raise RuntimeError(f"{counted!r} files were seen")
