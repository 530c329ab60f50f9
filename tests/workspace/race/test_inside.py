"""Races from inside: a confined command swaps names in its own workspace while the host works."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from sandyard import Manifest, UnixLocalSandboxClient, UnixLocalSandboxSession
from sandyard.errors import SandboxError
from sandyard.manifest import File
from sandyard.types import Permissions
from tests.workspace.race.arena import (
    CONTROL_S,
    ONLY_OUTSIDE,
    SECRET,
    Arena,
    opened_descriptors,
)
from tests.workspace.race.verbs import naive_read

ATTACKS = ("links", "files", "dots", "magic", "flaps", "special", "leases")
ATTACK_S = 0.5

Call = Callable[[UnixLocalSandboxSession, str], Awaitable[object]]


async def check_read(session: UnixLocalSandboxSession, where: str) -> None:
    reader = await session.read(f"{where}/secret")
    try:
        assert SECRET not in await asyncio.to_thread(reader.read)
    finally:
        reader.close()


async def check_list(session: UnixLocalSandboxSession, where: str) -> None:
    assert ONLY_OUTSIDE not in str(await session.ls(where))


async def check_normal(session: UnixLocalSandboxSession, where: str) -> None:
    path = await session.normalize_path(f"{where}/secret")
    assert path.is_relative_to(session.state.manifest.root)


CALLS: tuple[Call, ...] = (
    check_read,
    check_list,
    check_normal,
    lambda session, d: session.write(f"{d}/secret", b"evil"),
    lambda session, d: session.write(f"{d}/new", b"evil"),
    lambda session, d: session.mkdir(f"{d}/a/b", parents=True),
    lambda session, d: session.append(f"{d}/secret", b"evil"),
    lambda session, d: session.chmod(f"{d}/secret", 0o644),
    lambda session, d: session.mv(f"{d}/secret", f"{d}/new"),
    lambda session, d: session.copy(f"{d}/new", f"{d}/copy"),
    lambda session, d: session.stat(f"{d}/secret"),
    lambda session, d: session.glob("**/*", path=d),
    lambda session, d: session.grep("evil", d),
    lambda session, d: session.apply_patch(
        {"type": "create_file", "path": f"{d}/p/x", "diff": "+evil"}
    ),
    lambda session, d: session.rm(f"{d}/secret"),
    lambda session, d: session.rm(d, recursive=True),
)


@pytest.fixture
async def attackable(arena: Arena) -> AsyncIterator[UnixLocalSandboxSession]:
    """A session whose workspace lies beside what nobody may touch, with the attacker in it."""
    program = await asyncio.to_thread(arena.attacker.read_bytes)
    entry = File(content=program, permissions=Permissions(owner=7, group=5, other=5))
    client = UnixLocalSandboxClient()
    manifest = Manifest(root=str(arena.base), entries={"attacker": entry})
    session = await client.create(manifest=manifest)
    try:
        async with session:
            yield session
    finally:
        await client.delete(session)


@asynccontextmanager
async def attacked(
    session: UnixLocalSandboxSession, attack: str, target: Path
) -> AsyncIterator[None]:
    """A confined command swaps names in the block."""
    words = ("./attacker", attack, ".", str(target))
    async with session.stream(*words, shell=False) as running:
        async for chunk in running:
            assert chunk.data == b"ready\n"
            break
        yield


async def test_nothing_leaks(attackable: UnixLocalSandboxSession, arena: Arena) -> None:
    done = [0] * len(CALLS)
    with arena.untouched():
        for attack in ATTACKS:
            async with attacked(attackable, attack, arena.outside):
                end = time.monotonic() + ATTACK_S
                while time.monotonic() < end:
                    for number, call in enumerate(CALLS):
                        with suppress(SandboxError):
                            await call(attackable, "d")
                            done[number] += 1
            await attackable.exec("rm -rf d d2 x device")
    assert all(done), "some never succeeded, so nothing was shown"


async def test_a_naive_program_leaks(attackable: UnixLocalSandboxSession, arena: Arena) -> None:
    def attempt() -> bool:
        end = time.monotonic() + CONTROL_S
        while time.monotonic() < end:
            with suppress(OSError):
                if naive_read(arena.base):
                    return True
        return False

    async with attacked(attackable, "links", arena.decoy):
        assert await asyncio.to_thread(attempt)


async def test_many_calls_at_once(attackable: UnixLocalSandboxSession, arena: Arena) -> None:
    """All calls run at the same time, in all the threads that a workspace has."""
    with arena.untouched(), opened_descriptors():
        async with attacked(attackable, "links", arena.outside):
            for _ in range(20):
                results = await asyncio.gather(
                    *(call(attackable, "d") for call in CALLS * 4), return_exceptions=True
                )
                odd = [error for error in results if isinstance(error, BaseException)]
                assert all(isinstance(error, SandboxError) for error in odd), odd
