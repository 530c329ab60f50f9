"""A host program: starts daemons in a session, then ends them in the way that it is told to.

usage: sleeper.py TOKEN WAY, where WAY is timeout, cancel, close or wait.
"""

from __future__ import annotations

import asyncio
import sys

from sandyard import ExecTimeoutError, Policy, UnixLocalSandboxClient, UnixLocalSandboxSession

DAEMONS = (
    "setsid sleep @ & (setsid sh -c '(setsid sleep @ &) ; sleep @' &) ; "
    "(trap '' TERM HUP; exec sleep @) & "
)


async def end_by(session: UnixLocalSandboxSession, script: str, token: str, way: str) -> None:
    """End what ``script`` starts."""
    if way == "timeout":
        try:
            await session.exec(script, timeout=1)
        except ExecTimeoutError:
            return
        raise SystemExit("it did not time out")
    running = asyncio.create_task(session.exec(script))
    # Told when all of them are there, by whoever can see them: the test.
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    if way == "cancel":
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    else:
        await session.shutdown()
        await asyncio.gather(running, return_exceptions=True)


async def main() -> None:
    token, way = sys.argv[1:]
    client = UnixLocalSandboxClient(policy=Policy(accept=("write",)))
    session = await client.create()
    try:
        async with session:
            print("ready", flush=True)
            await end_by(session, DAEMONS.replace("@", token) + f"sleep {token}", token, way)
            print("ended", flush=True)
            await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    finally:
        await client.delete(session)


if __name__ == "__main__":
    asyncio.run(main())
