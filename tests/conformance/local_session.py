"""Sessions of this machine for the suite; as a program, the suite on the rung its host allows."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sandyard import BaseSandboxSession, Policy, UnixLocalSandboxClient
from sandyard.testing import SessionFactory, run_conformance

__all__ = ["local_sessions"]


def local_sessions(policy: Policy | None = None) -> SessionFactory:
    """What makes sessions with a policy."""

    @asynccontextmanager
    async def make() -> AsyncIterator[BaseSandboxSession]:
        client = UnixLocalSandboxClient(policy=policy)
        session = await client.create()
        try:
            yield session
        finally:
            await client.delete(session)

    return make


async def attempt_all() -> dict[str, str]:
    """Each behaviour that is not shown here, and why."""
    policy = Policy(
        accept=("read", "write", "network", "processes", "ipc", "syscalls", "resources")
    )
    result = await run_conformance(local_sessions(policy), only=["commands", "links"])
    return {one.behaviour.name: one.why for one in (*result.failed, *result.not_offered)}


if __name__ == "__main__":
    json.dump(asyncio.run(attempt_all()), sys.stdout)
