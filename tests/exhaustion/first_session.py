"""A host program whose first session meets each number of free descriptors, in a child for each."""

from __future__ import annotations

import asyncio
import os

from sandyard import UnixLocalSandboxClient, UnixLocalSandboxSession
from sandyard.platform import HostFacts, host_facts
from tests.exhaustion.programs import describe, tell
from tests.exhaustion.shortage import few_descriptors

SPARES = range(31)


async def begin(
    client: UnixLocalSandboxClient, spare: int
) -> tuple[str, UnixLocalSandboxSession | None]:
    """Create and start with few descriptors; returns what came of it."""
    session = None
    with few_descriptors(spare):
        try:
            session = await client.create()
            await session.start()
        except Exception as error:  # noqa: BLE001  # the test says which are right
            return describe(error), session
    return "ok", session


async def live(spare: int) -> tuple[str, str]:
    """Begin with few descriptors, go on with many; returns how both went."""
    client = UnixLocalSandboxClient()
    began, session = await begin(client, spare)
    session = session or await client.create()
    await session.start()
    result = await session.exec("echo on")
    await client.delete(session)
    return began, result.stdout.decode().strip()


def ask_child(spare: int | None) -> str:
    """What a child tells that has seen nothing of the host yet."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        began, after = ("", "") if spare is None else asyncio.run(live(spare))
        facts: HostFacts = host_facts(dict(os.environ))
        os.write(write_end, f"{began}|{after}|{facts!r}".encode())
        os._exit(0)
    os.close(write_end)
    with open(read_end, encoding="utf-8") as file:
        said = file.read()
    os.waitpid(pid, 0)
    return said


def main() -> None:
    _, _, truth = ask_child(None).split("|", 2)
    for spare in SPARES:
        began, after, facts = ask_child(spare).split("|", 2)
        tell(f"{spare}|{began}|{'whole' if facts == truth else 'less'}|{after}")


if __name__ == "__main__":
    main()
