"""A host program in a memory group: the argument is the group's directory, which it enters."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from sandyard import UnixLocalSandboxClient
from tests.exhaustion.programs import describe, tell

# Touches memory until somebody ends it.
HOG = "held = []\nwhile True: held.append(bytes(1 << 20) + b'x')"


async def feed_at(moment: asyncio.Event) -> AsyncIterator[bytes]:
    """A line, when the moment has come."""
    await moment.wait()
    yield b"on\n"


async def main() -> None:
    client = UnixLocalSandboxClient()
    session, ended = await client.create(), asyncio.Event()
    async with session:
        other = asyncio.create_task(session.exec("read line; echo $line", stdin=feed_at(ended)))
        for _ in range(3):
            try:
                result = await session.exec("python3", "-c", HOG, shell=False, timeout=40)
                tell(f"exit {result.exit_code}")
            except Exception as error:  # noqa: BLE001  # the test says that there is none
                tell(describe(error))
        ended.set()
        tell(f"other {(await other).stdout.decode().strip()}")
        tell(f"after {(await session.exec('echo on')).stdout.decode().strip()}")
    await client.delete(session)


if __name__ == "__main__":
    Path(sys.argv[1], "cgroup.procs").write_text("0", encoding="ascii")
    asyncio.run(main())
