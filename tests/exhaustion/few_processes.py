"""A host program whose user has no place for a process left; the argument says what is then tried."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

from sandyard import UnixLocalSandboxClient, UnixLocalSandboxSession
from tests.exhaustion.programs import describe, tell
from tests.exhaustion.shortage import Fillers, few_processes
from tests.house.leaks import list_children, read_proc

Client = UnixLocalSandboxClient
Session = UnixLocalSandboxSession

MOST_PLACES = 9
"""What a session needs at once: two threads, two processes, and one for each command. And some."""


async def outcome(work: Awaitable[object]) -> str:
    """How something went, in a word or two."""
    try:
        await work
    except Exception as error:  # noqa: BLE001  # the test says which are right
        return describe(error)
    return "ok"


async def run(session: Session) -> None:
    """Run a command and look at its output."""
    result = await session.exec("echo on", timeout=20)
    assert result.stdout == b"on\n", result


async def renew_threads() -> None:
    """From here on the loop has no thread that waits for work, as after a quiet start."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor())


async def settle() -> None:
    """Let all that is queued for threads be done, also what nobody asked for any more."""
    await asyncio.gather(*(asyncio.to_thread(os.getpid) for _ in range(40)))


# --- what is tried --------------------------------------------------------------------------------


async def begin(client: Client) -> None:
    """Start sessions with each number of places; then with all."""
    warm = await client.create()
    async with warm:
        await run(warm)
    await client.delete(warm)
    for spare in range(MOST_PLACES):
        session = await client.create()
        with few_processes(spare):
            tell(f"{spare} {await outcome(session.start())}")
        await session.shutdown()  # the kernel keeps the limit with what was started under it
        await session.start()
        await run(session)
        await client.delete(session)


async def begin_cold(client: Client) -> None:
    """Create, start and write without a thread: the threads are what is refused."""
    session, running = await client.create(), await client.create()
    await running.start()  # and its threads for files begin with the first file
    await renew_threads()
    with few_processes(0):
        tell(await outcome(client.create()))
        tell(await outcome(session.start()))
        tell(await outcome(running.write("file", b"")))
    await settle()
    await client.delete(session)
    await client.delete(running)


async def haunt(client: Client) -> None:
    """What was refused must stay undone, also when there are threads again."""
    session = await client.create()
    await session.start()
    await session.shutdown()
    await renew_threads()
    before = set(os.listdir(tempfile.gettempdir()))
    with few_processes(0):
        for work in (client.create(), session.write("refused", b""), session.start()):
            assert await outcome(work) != "ok"
    await settle()
    if set(os.listdir(tempfile.gettempdir())) != before:
        tell("a workspace")
    if "sandyard-init" in {
        read_proc(f"/proc/{p}/comm").strip() for p in list_children(os.getpid())
    }:
        tell("a sandbox")
    await session.start()
    await session.write("other", b"")
    if "refused" in {entry.path.rpartition("/")[2] for entry in await session.ls(".")}:
        tell("a file")
    await client.delete(session)


async def stream_something(session: Session) -> None:
    """Read a command to its end; a stream tells at its first chunk that it was never born."""
    async with session.stream("echo on") as running:
        async for _ in running:
            pass


async def go_on(client: Client) -> None:
    """Commands in a running session, whose sandbox was made under the limit."""
    with few_processes(12) as fillers:
        session = await client.create()
        await session.start()
        await run(session)
        await session.write("file", b"")
        tell(await go_without(session, fillers))
        tell(await outcome(run(session)))
        outcomes = await asyncio.gather(*(outcome(run(session)) for _ in range(20)))
        tell(" ".join(sorted(set(outcomes) - {"ok", "ResourceLimitError processes"})))
        await client.delete(session)


async def go_without(session: Session, fillers: Fillers) -> str:
    """Run and stream with no place left, then free a few."""
    fillers.fill()
    said = {await outcome(run(session)), await outcome(stream_something(session))}
    assert await session.running()
    with await session.read("file") as file:
        assert file.read() == b""
    fillers.release(4)
    return " ".join(sorted(said))


TRIED: dict[str, Callable[[Client], Awaitable[None]]] = {
    "begin": begin,
    "begin_cold": begin_cold,
    "haunt": haunt,
    "go_on": go_on,
}


async def main() -> None:
    await TRIED[sys.argv[1]](UnixLocalSandboxClient())


if __name__ == "__main__":
    asyncio.run(main())
