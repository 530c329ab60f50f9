"""Sessions with limits, and what of them can be seen from the host."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from sandyard import Policy, ResourceLimits, UnixLocalSandboxClient, UnixLocalSandboxSession
from sandyard.platform import CgroupFacts, cgroup_facts

MIB = 2**20


@asynccontextmanager
async def limited(limits: ResourceLimits) -> AsyncIterator[UnixLocalSandboxSession]:
    """A started session of its own, deleted afterwards."""
    client = UnixLocalSandboxClient(policy=Policy(limits=limits))
    session = await client.create()
    try:
        async with session:
            yield session
    finally:
        await client.delete(session)


def need_controllers(*names: str) -> CgroupFacts:
    """What control groups offer; skips a test where this program may not use control groups."""
    facts = cgroup_facts(tried=True)
    for name in names:
        if facts.parent_of(name) is None:
            pytest.skip(f"no control group for {name}: {facts.refusal_of(name)}")
    return facts


def need_none(*names: str) -> None:
    """Skip a test where this program may use control groups."""
    facts = cgroup_facts(tried=True)
    if any(facts.parent_of(name) for name in names):
        pytest.skip("a control group is delegated to this user")


def session_groups(pid: int | str = "self") -> list[str]:
    """The groups of a program's sessions: it holds them open. Others run tests here too."""
    found = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        with suppress(OSError):
            target = os.readlink(f"/proc/{pid}/fd/{name}")
            if os.path.basename(target).startswith("sandyard-") and os.path.isdir(target):
                found.append(target)
    return sorted(path for path in found if os.path.exists(f"{path}/cgroup.procs"))


def members_of(group: str) -> list[str]:
    """The processes in a group."""
    return Path(group, "cgroup.procs").read_text().split()


def existing(groups: list[str]) -> list[str]:
    """Those groups that are still there."""
    return [group for group in groups if os.path.exists(group)]


async def follow(session: UnixLocalSandboxSession, command: str) -> bytes:
    """Run a command as a stream, to its end."""
    output = b""
    async with session.stream(command) as running:
        async for chunk in running:
            output += chunk.data
    return output


def hit_names(result: object) -> list[str]:
    """The limits that a result says were reached."""
    return [hit.limit for hit in getattr(result, "limit_hits", ())]
