"""A host program that closes its loop while a task waits, and then its session on another loop.

Its argument says what the task waits for, its second how long the command sleeps. It ends without
letting go of the task, which nobody can end any more.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable

from sandyard import UnixLocalSandboxClient, UnixLocalSandboxSession

Session = UnixLocalSandboxSession
LARGE = 1 << 20


async def run(session: Session, sleep: str) -> None:
    await session.exec(sleep)


async def wait(session: Session, sleep: str) -> None:
    await (await session.start_process(sleep)).wait()


async def follow(session: Session, sleep: str) -> None:
    await exhaust((await session.start_process(sleep)).logs())


async def write(session: Session, sleep: str) -> None:
    await (await session.start_process(sleep, stdin=True)).stdin.write(bytes(LARGE))


async def attach(session: Session, sleep: str) -> None:
    async with (await session.terminal(sleep)).attach() as output:
        await exhaust(output)


async def paste(session: Session, sleep: str) -> None:
    await (await session.terminal(f"stty raw; {sleep}")).write(bytes(LARGE))


async def ask(session: Session, sleep: str) -> None:
    await session.pty_exec_start(sleep)


async def exhaust(source: AsyncIterator[object]) -> None:
    async for _ in source:
        pass


WORKS = {work.__name__: work for work in (run, wait, follow, write, attach, paste, ask)}


def main(work: Callable[[Session, str], Awaitable[None]], sleep: str) -> None:
    """Abandons a task, closes the session, and says what is left of it."""
    client, loop = UnixLocalSandboxClient(), asyncio.new_event_loop()

    async def begin() -> tuple[Session, asyncio.Future[None]]:
        session = await client.create()
        await session.start()
        waits = asyncio.ensure_future(work(session, sleep))
        await asyncio.sleep(0.3)
        return session, waits

    session, waits = loop.run_until_complete(begin())
    loop.close()
    asyncio.run(client.delete(session))
    sys.stdout.write(" ".join(["open" if waits.done() else "closed", *links()]) + "\n")
    sys.stdout.flush()
    os._exit(0)


def links() -> list[str]:
    """What descriptors of a sandbox are open."""
    with os.scandir("/proc/self/fd") as entries:
        found = [os.readlink(entry.path) for entry in entries]
    return [name for name in found if "pidfd" in name or "ptmx" in name]


if __name__ == "__main__":
    main(WORKS[sys.argv[1]], f"sleep {sys.argv[2]}")
