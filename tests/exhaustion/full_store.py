"""A host program that saves, compacts, restores and forks where so many bytes are free, and no more.

Run it in a mount namespace of its own, as root. The argument is a directory to mount two small file
systems in: one for the state directory, which has the store, and one for workspaces.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from sandyard import (
    SandboxError,
    SnapshotStore,
    StoreSnapshotSpec,
    UnixLocalSandboxClient,
    UnixLocalSandboxSession,
)
from tests.exhaustion.programs import describe, tell

SIZE = 4 * 1024 * 1024
CONTENT = 300_000
STEP = 64 * 1024
FREE = range(0, 3 * CONTENT, STEP)
"""Bytes that are left free, one after the other, until a verb has room enough."""

PAGE = 4096


class Place:
    """A small file system that can be filled."""

    def __init__(self, path: str) -> None:
        self.path = path
        os.mkdir(path)
        words = ["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=1777", "small", path]
        subprocess.run(words, check=True)

    @contextmanager
    def leaving(self, free: int) -> Iterator[None]:
        """Only so many bytes are free in the block."""
        facts = os.statvfs(self.path)
        size = facts.f_bavail * facts.f_frsize - free // PAGE * PAGE
        filler = os.path.join(self.path, "filler")
        with open(filler, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)
        try:
            yield
        finally:
            os.unlink(filler)


class Trial:
    """One user's store and sessions, and what was acknowledged."""

    def __init__(self, top: str) -> None:
        self.state, self.temporary = Place(f"{top}/state"), Place(f"{top}/tmp")
        os.environ |= {"XDG_STATE_HOME": self.state.path, "TMPDIR": self.temporary.path}
        self.client = UnixLocalSandboxClient()
        self.kept: list[bytes] = []

    async def until_enough(
        self,
        place: Place,
        verb: Callable[[], Awaitable[object]],
        check: Callable[[], Awaitable[object]],
    ) -> set[str]:
        """Try a verb with more and more room; returns how it was refused before it had enough."""
        refused: set[str] = set()
        for free in FREE:
            try:
                with place.leaving(free):
                    await verb()
            except SandboxError as error:
                causes = describe(error.cause) if error.cause else ""
                refused.add(f"{describe(error)} < {causes}")
                await check()
            else:
                await check()
                return refused
        raise AssertionError("there was never room enough")

    async def check_store(self) -> None:
        """All that was acknowledged is whole, and nothing else is there."""
        store = SnapshotStore()
        health = await store.verify()
        assert health.ok, health.damage
        found = await store.list()
        assert len(found) == len(self.kept)
        for snapshot, content in zip(found, self.kept, strict=True):
            archive = b"".join([piece async for piece in store.export(snapshot.id)])
            assert content in archive

    def check_temporary(self, names: list[str]) -> Callable[[], Awaitable[None]]:
        """Nothing but these is there."""

        async def check() -> None:
            assert sorted(os.listdir(self.temporary.path)) == sorted(names)

        return check


async def save(trial: Trial, session: UnixLocalSandboxSession) -> set[str]:
    """Save something new each time."""
    content = os.urandom(CONTENT)
    await session.write("data", content)

    async def stop() -> None:
        await session.stop()
        trial.kept.append(content)

    return await trial.until_enough(trial.state, stop, trial.check_store)


async def restore(trial: Trial, session: UnixLocalSandboxSession) -> set[str]:
    """Restore what is nowhere but in the store."""
    await trial.client.delete(session)
    left = trial.check_temporary([])

    async def resume() -> None:
        again = await trial.client.resume(session.state)
        try:
            await again.start()
            with await again.read("data") as file:
                assert file.read() == trial.kept[-1]
        finally:
            await again.aclose(save=False)
            await trial.client.delete(again)

    return await trial.until_enough(trial.temporary, resume, left)


async def fork(trial: Trial, session: UnixLocalSandboxSession) -> set[str]:
    """Copy a session that runs."""
    left = trial.check_temporary(os.listdir(trial.temporary.path))

    async def make() -> None:
        made = await trial.client.fork(session)
        await trial.client.delete(made)

    return await trial.until_enough(trial.temporary, make, left)


async def main(top: str) -> None:
    trial = Trial(top)
    session = await trial.client.create(snapshot=StoreSnapshotSpec())
    await session.start()
    for _ in range(2):
        for said in sorted(await save(trial, session)):
            tell(f"save: {said}")
    for said in sorted(await fork(trial, session)):
        tell(f"fork: {said}")
    await session.aclose(save=False)

    async def compact() -> None:
        await SnapshotStore().compact()

    for said in sorted(await trial.until_enough(trial.state, compact, trial.check_store)):
        tell(f"compact: {said}")
    for said in sorted(await restore(trial, session)):
        tell(f"restore: {said}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
