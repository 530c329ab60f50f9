"""A host program with one session under a memory limit: it says so, and waits to be killed."""

from __future__ import annotations

import asyncio
import sys

from sandyard import Policy, ResourceLimits, UnixLocalSandboxClient


async def main() -> None:
    """Start a session, tell, and do nothing more."""
    policy = Policy(limits=ResourceLimits(memory=64 * 2**20))
    session = await UnixLocalSandboxClient(policy=policy).create()
    await session.start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await session.exec("sleep 600")


if __name__ == "__main__":
    asyncio.run(main())
