"""Owns how tests look into a sandbox and at it: programs run inside, and its processes outside."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from sandyard import ExecResult, Manifest, Policy, UnixLocalSandboxClient, UnixLocalSandboxSession
from tests.escape.attacks import read_prelude
from tests.house.leaks import list_children, read_proc, read_state

__all__ = ["find_outers", "list_tree", "read_status", "run_host", "run_python", "sandbox"]

Session = UnixLocalSandboxSession


@asynccontextmanager
async def sandbox(policy: Policy | None = None, root: Path | None = None) -> AsyncIterator[Session]:
    """A session, deleted at the end; in a directory of its own, or in ``root``."""
    client = UnixLocalSandboxClient()
    manifest = None if root is None else Manifest(root=str(root))
    session = await client.create(manifest=manifest, policy=policy)
    try:
        async with session:
            yield session
    finally:
        await client.delete(session)


async def run_python(
    session: Session, code: str, *arguments: str, env: Mapping[str, str] | None = None
) -> ExecResult:
    """Run Python inside, after the prelude; it has to come to its end."""
    source = f"{read_prelude()}\n{code}"
    result = await session.exec(
        sys.executable, "-I", "-c", source, *arguments, shell=False, timeout=20, env=env
    )
    assert result.exit_code == 0, result
    return result


def run_host(*argv: str | Path, check: bool = True) -> subprocess.CompletedProcess[bytes]:
    """Run a program unconfined, without input, to its end."""
    return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=check)


def find_outers() -> list[int]:
    """The outer processes of the sandboxes that this process has, oldest first."""
    names = {pid: read_proc(f"/proc/{pid}/comm").strip() for pid in list_children(os.getpid())}
    return sorted(
        pid
        for pid, name in names.items()
        if name == "sandyard-init" and read_state(pid)[0] not in "ZX?"
    )


def list_tree(pid: int) -> list[int]:
    """A process and all its descendants."""
    return [pid, *(below for child in list_children(pid) for below in list_tree(child))]


def read_status(pid: int) -> dict[str, list[str]]:
    """The words of /proc/PID/status by their names."""
    lines = read_proc(f"/proc/{pid}/status").splitlines()
    return {line.partition(":")[0]: line.partition(":")[2].split() for line in lines}
