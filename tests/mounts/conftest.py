"""Owns what tests of mounts share: a directory of the host's to show, and sessions that show it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from sandyard import (
    Manifest,
    MountProvider,
    Policy,
    UnixLocalSandboxClient,
    UnixLocalSandboxSession,
)
from sandyard.manifest.entries import GivenEntries

Opened = Callable[..., AbstractAsyncContextManager[UnixLocalSandboxSession]]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A directory of the host's."""
    place = tmp_path / "source"
    (place / "deep").mkdir(parents=True)
    (place / "file").write_text("host")
    (place / "deep/file").write_text("deeper")
    return place


@pytest.fixture
def opened() -> Opened:
    @asynccontextmanager
    async def open_session(
        entries: GivenEntries | None = None,
        policy: Policy | None = None,
        providers: Mapping[str, MountProvider] | None = None,
    ) -> AsyncIterator[UnixLocalSandboxSession]:
        client = UnixLocalSandboxClient(policy=policy, mount_providers=providers)
        session = await client.create(manifest=Manifest(entries=entries))
        try:
            async with session:
                yield session
        finally:
            await client.delete(session)

    return open_session


async def output(session: UnixLocalSandboxSession, command: str) -> str:
    """What a command writes, errors included."""
    done = await session.exec(f"exec 2>&1; {command}", timeout=30)
    return done.stdout.decode()


async def inner_mounts(session: UnixLocalSandboxSession) -> list[str]:
    """Where something is mounted in the workspace, as the kernel tells it inside."""
    table = await output(session, "cut -d' ' -f5 /proc/self/mountinfo")
    root = session.state.manifest.root
    return sorted(line[len(root) + 1 :] for line in table.split() if line.startswith(f"{root}/"))
