"""A host program on a terminal: runs scripts unconfined or in a session, and tells what they said.

Run as a script: the first argument is "control" or "confined", the others are scripts.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys

from sandyard import UnixLocalSandboxClient


async def run_confined(scripts: list[str]) -> list[str]:
    """What the scripts say in a session."""
    client = UnixLocalSandboxClient()
    session = await client.create()
    async with session:
        results = [await session.exec(script, timeout=10) for script in scripts]
    await client.delete(session)
    return [result.stdout.decode() for result in results]


def run_control(scripts: list[str]) -> list[str]:
    """What the scripts say as children like any other."""
    return [
        subprocess.run(["sh", "-c", script], stdout=-1, text=True, check=False).stdout
        for script in scripts
    ]


def main() -> None:
    _, kind, *scripts = sys.argv
    said = run_control(scripts) if kind == "control" else asyncio.run(run_confined(scripts))
    sys.stdout.write(json.dumps(said))


if __name__ == "__main__":
    main()
