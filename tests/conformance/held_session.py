"""Sessions that the supervisor holds, for the suite."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from sandyard import SessionNotFoundError
from sandyard.server.remote import RemoteClient, RemoteSession
from sandyard.testing import SessionFactory

__all__ = ["held_sessions"]


def held_sessions(client: RemoteClient) -> SessionFactory:
    """What makes sessions of the supervisor's; leaving the block deletes one."""

    @asynccontextmanager
    async def make() -> AsyncIterator[RemoteSession]:
        session = await client.create(start=False)
        try:
            yield session
        finally:
            with suppress(SessionNotFoundError):
                await client.delete(session)

    return make
