"""Owns a sandbox whose private directories hold little: a plan of the usual kind, for a small machine."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from sandyard import ExecResult
from sandyard.confinement import WorkspaceRoot, plan_session
from sandyard.plan import LaunchPlan, Spawn
from sandyard.platform import host_facts
from sandyard.policy import Policy
from sandyard.process import CommandCall, Commands, InitProcess

SCRATCH_BYTES = 64 * 1024**2
"""What the smallest machine gives to /tmp, HOME and the others together."""

SCRATCH_FILES = SCRATCH_BYTES // (16 * 1024)
"""And how many files."""


ENVIRONMENT = ((b"PATH", b"/usr/bin:/bin"), (b"HOME", b"/home/agent"))


class SmallSandbox:
    """Runs shell commands in it."""

    def __init__(self, commands: Commands, place: Path) -> None:
        self._commands = commands
        self._place = str(place).encode()

    async def run(self, text: str) -> ExecResult:
        """Run a command in the workspace."""
        spawn = Spawn(argv=(b"sh", b"-c", text.encode()), environment=ENVIRONMENT, cwd=self._place)
        return await self._commands.run(CommandCall(words=("sh",), spawn=spawn, timeout_s=40))


@asynccontextmanager
async def small_sandbox(place: Path) -> AsyncIterator[SmallSandbox]:
    """A sandbox as on a machine with little memory."""

    def plan() -> LaunchPlan:
        facts = dataclasses.replace(host_facts(os.environ), memory_bytes=SCRATCH_BYTES * 2)
        inode = place.stat()
        root = WorkspaceRoot(str(place), str(place), (inode.st_dev, inode.st_ino))
        return plan_session(Policy(), facts, root, ())

    async with await InitProcess.start(plan) as init:
        commands = Commands(init)
        yield SmallSandbox(commands, place)
        commands.close()
