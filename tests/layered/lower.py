"""Owns a program that starts a session on layers on a worse host, and tells as JSON what it was told."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile

from sandyard import Layered, SandboxError, UnixLocalSandboxClient


async def tell(state: str) -> None:
    os.environ["XDG_STATE_HOME"] = state
    client = UnixLocalSandboxClient()
    session = await client.create(workspace=Layered())
    try:
        await session.start()
    except SandboxError as error:
        told = {"code": error.error_code, "message": error.message}
    else:
        told = {"code": "", "message": "it has started"}
    finally:
        await client.delete(session)
    json.dump({**told, "left": os.listdir(os.path.join(state, "sandyard/sessions"))}, sys.stdout)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        asyncio.run(tell(place))
