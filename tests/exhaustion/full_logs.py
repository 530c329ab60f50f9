"""A host program whose state directory lies on a small file system: logs find no room.

Run it in a mount namespace of its own, as root. The arguments are a directory to mount it on and
which of its sizes is small: ``bytes`` or ``files``.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from sandyard import BackgroundProcess, UnixLocalSandboxClient, UnixLocalSandboxSession
from tests.exhaustion.programs import tell
from tests.exhaustion.shortage import count_descriptors

SIZES = {"bytes": "size=1m,mode=0700", "files": "size=64m,nr_inodes=10,mode=0700"}
COMMANDS = {"bytes": "echo first; read line; seq 500000", "files": "read line; seq 1000; exit 3"}


def fill(place: Path, kind: str) -> None:
    """Leave no room there."""
    with suppress(OSError):
        if kind == "bytes":
            (place / "filler").write_bytes(bytes(2_000_000))
        for number in range(100):
            (place / f"filler-{number}").touch()


def empty(place: Path) -> None:
    """Make room again."""
    for each in place.glob("filler*"):
        each.unlink()


def names_left(place: Path) -> str:
    """What is left of sessions."""
    return " ".join(os.listdir(place / "sandyard" / "sessions")) or "nothing left"


async def told_of(process: BackgroundProcess) -> tuple[bytes, int]:
    """What a log tells, and of how much it tells that it is missing."""
    chunks = [chunk async for chunk in process.logs()]
    return b"".join(chunk.data for chunk in chunks), sum(chunk.missed for chunk in chunks)


async def log_into_nothing(session: UnixLocalSandboxSession, place: Path, kind: str) -> None:
    """A process that writes more than there is room for."""
    process = await session.start_process(COMMANDS[kind], stdin=True)
    if kind == "bytes":
        await anext(process.logs())
    await asyncio.to_thread(fill, place, kind)
    await process.stdin.write(b"\n")
    result = await process.wait()
    text, missed = await told_of(process)
    status = process.log_status
    tell(f"exit {result.exit_code}")
    tell(status.failure or "no failure")
    tell("lost" if status.lost == missed > 0 else f"lost {status.lost}, missed {missed}")
    counted = len(text) + missed == status.stdout_total == result.stdout_total
    tell("counted" if counted else f"{len(text)} + {missed} of {status.stdout_total}")


async def main(place: Path, kind: str) -> None:
    client = UnixLocalSandboxClient()
    session = await client.create()
    async with session:
        await log_into_nothing(session, place, kind)
        await asyncio.to_thread(empty, place)
        again = await session.start_process("echo again")
        await again.wait()
        tell((await told_of(again))[0].decode().strip())
        before = count_descriptors()
        tell("on" if (await session.exec("echo on")).stdout == b"on\n" else "off")
        tell("clean" if count_descriptors() == before else "leaks")
    await client.delete(session)
    tell(await asyncio.to_thread(names_left, place))


if __name__ == "__main__":
    _, where, chosen = sys.argv
    subprocess.run(["mount", "-t", "tmpfs", "-o", SIZES[chosen], "full", where], check=True)
    os.environ["XDG_STATE_HOME"] = where
    asyncio.run(main(Path(where), chosen))
