"""A host program with a small soft limit on open files: the argument."""

from __future__ import annotations

import asyncio
import resource
import sys

from sandyard import SandboxError, UnixLocalSandboxClient
from tests.exhaustion.programs import describe, tell


async def main() -> None:
    client = UnixLocalSandboxClient()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), hard))
    session = await client.create()
    try:
        await session.start()
        tell((await session.exec("echo on")).stdout.decode().strip())
    except SandboxError as error:
        tell(describe(error))
    finally:
        await client.delete(session)


if __name__ == "__main__":
    asyncio.run(main())
