"""Owns the session that has a second user, a third, and a group of two of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from sandyard import Group, Manifest, Policy, UnixLocalSandboxClient, UnixLocalSandboxSession, User

PEOPLE = {
    "users": [User(name="reviewer"), User(name="other")],
    "groups": [Group(name="team", users=[User(name="agent"), User(name="reviewer")])],
}
SHARED = "mkdir share && chgrp team share && chmod 770 share"


@asynccontextmanager
async def people(
    manifest: Manifest | None = None, policy: Policy | None = None
) -> AsyncIterator[UnixLocalSandboxSession]:
    """A started session of several users, deleted afterwards."""
    client = UnixLocalSandboxClient(policy=policy)
    made = await client.create(manifest=manifest or Manifest(**PEOPLE))  # type: ignore[arg-type]
    try:
        async with made:
            yield made
    finally:
        await client.delete(made)


@pytest.fixture
async def session() -> AsyncIterator[UnixLocalSandboxSession]:
    async with people() as made:
        yield made


async def said(session: UnixLocalSandboxSession, command: str, user: str | None = None) -> str:
    """What a command of somebody's writes; it succeeds."""
    result = await session.exec(command, user=user, timeout=30)
    assert result.exit_code == 0, (command, user, result)
    return result.stdout.decode().strip()


async def is_refused(session: UnixLocalSandboxSession, command: str, user: str | None) -> bool:
    """Whether a command of somebody's fails for want of rights."""
    result = await session.exec(command, user=user, timeout=30)
    said = result.stderr.decode()
    assert (result.exit_code != 0) == ("Permission denied" in said or "not permitted" in said), (
        command,
        user,
        result,
    )
    return result.exit_code != 0
