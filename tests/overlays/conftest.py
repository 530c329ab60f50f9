"""Owns what tests of overlays share: a directory of the host's, and sessions that work on it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from sandyard import Overlay, Policy, UnixLocalSandboxClient, UnixLocalSandboxSession

Opened = Callable[..., AbstractAsyncContextManager[UnixLocalSandboxSession]]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A directory of the host's."""
    place = tmp_path / "project"
    (place / "src/deep").mkdir(parents=True)
    (place / "notes").write_text("one\ntwo\nthree\n")
    (place / "src/main.py").write_text("print('hello')\n")
    (place / "src/deep/old").write_text("old")
    (place / "tool").write_text("#!/bin/sh\n")
    (place / "link").symlink_to("notes")
    return place


@pytest.fixture
def opened(base: Path) -> Opened:
    @asynccontextmanager
    async def open_session(policy: Policy | None = None) -> AsyncIterator[UnixLocalSandboxSession]:
        client = UnixLocalSandboxClient(policy=policy)
        session = await client.create(workspace=Overlay(base))
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


def contents(top: Path) -> dict[str, str]:
    """What a directory holds, to compare: of each entry its mode, and what it says."""
    found = {}
    for path in sorted(top.rglob("*")):
        mode = f"{path.lstat().st_mode:o} "
        if path.is_symlink():
            found[str(path.relative_to(top))] = mode + str(path.readlink())
        elif path.is_file():
            found[str(path.relative_to(top))] = mode + path.read_text()
        else:
            found[str(path.relative_to(top))] = mode
    return found
