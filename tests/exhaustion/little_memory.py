"""A host program that may take little memory while it keeps the output of commands."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable

from sandyard import UnixLocalSandboxClient, UnixLocalSandboxSession
from sandyard.process.budget import descriptor_budget
from tests.exhaustion.programs import describe, tell
from tests.exhaustion.shortage import count_descriptors, little_memory

Session = UnixLocalSandboxSession

SIZE = 24 * 1024**2
COMMAND = f"head -c {SIZE} /dev/zero"
KEEP = 4 * SIZE
"""Bytes that a call may keep of it: all is head, the quarter that grows in one piece."""

MIB = 1024**2
SPARES = tuple(size * MIB for size in (0, 1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 160))
HANG_S = 10.0


async def run_whole(session: Session) -> str:
    """Keep more than there is room for; tell the error, or whether the answer is the right one."""
    try:
        async with asyncio.timeout(HANG_S):
            result = await session.exec(COMMAND, output_limit=KEEP)
    except TimeoutError:
        return "hangs"
    except Exception as error:  # noqa: BLE001  # the test says which are right
        return describe(error)
    exact = (len(result.stdout), result.stdout_total, result.stdout_dropped) == (SIZE, SIZE, 0)
    return "exact" if exact else "lossy"


async def stream_whole(session: Session) -> str:
    """Read as it comes, keeping nothing: that needs no memory to speak of."""
    total = 0
    try:
        async with asyncio.timeout(HANG_S), session.stream(COMMAND) as running:
            async for chunk in running:
                total += len(chunk.data)
    except TimeoutError:
        return "hangs"
    except Exception as error:  # noqa: BLE001  # the test says which are right
        return describe(error)
    return "exact" if total == SIZE else "lossy"


async def sweep(session: Session, one: Callable[[Session], Awaitable[str]]) -> None:
    """Try with each amount of memory; afterwards everything must be as before."""
    before = count_descriptors()
    for spare in SPARES:
        with little_memory(spare):
            said = await one(session)
        left = count_descriptors() - before + descriptor_budget.used
        again = (await session.exec("echo on", timeout=HANG_S)).stdout.decode().strip()
        tell(f"{spare // MIB}|{said}|{left}|{again}")


async def free_meanwhile(session: Session) -> None:
    """The first refusal makes this program free what it can spare, and the command goes on."""
    ballast = [bytes(SIZE * 4)]
    asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: ballast.clear())
    with little_memory(SIZE // 2):
        said = await run_whole(session)
    tell(said)


async def main() -> None:
    # Its traceback is for a person who looks; here there are very many, and no memory for them.
    asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
    client = UnixLocalSandboxClient()
    session = await client.create()
    async with session:
        await session.exec("seq 10000")  # what is loaded at first use is there
        if sys.argv[1] == "free":
            await free_meanwhile(session)
        else:
            await sweep(session, run_whole if sys.argv[1] == "run" else stream_whole)
    await client.delete(session)


if __name__ == "__main__":
    asyncio.run(main())
