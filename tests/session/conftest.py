"""Owns the sessions that tests of the session use: started before the test, deleted after it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from sandyard import UnixLocalSandboxClient, UnixLocalSandboxSession


@pytest.fixture
def client() -> UnixLocalSandboxClient:
    return UnixLocalSandboxClient()


@pytest.fixture
async def session(client: UnixLocalSandboxClient) -> AsyncIterator[UnixLocalSandboxSession]:
    made = await client.create()
    try:
        async with made:
            yield made
    finally:
        await client.delete(made)
