"""No control group outlives its owner: cancelled starts, killed hosts, and the leak fixture's eyes."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from sandyard import Policy, ResourceLimits, UnixLocalSandboxClient
from sandyard.platform import CgroupFacts, cgroup_facts
from sandyard.process.cgroup import sweep_groups
from tests.house.leaks import find_cgroups
from tests.limits import host_program
from tests.limits.living import MIB, limited, need_controllers, session_groups

LIMITS = ResourceLimits(memory=64 * MIB, cpus=1)


@pytest.fixture(autouse=True)
def facts() -> CgroupFacts:
    return need_controllers("memory", "pids", "cpu")


@contextmanager
def killed_host(place: Path) -> Iterator[list[str]]:
    """The groups that a program left which was killed; its files are in directories of its own."""
    environment = {**os.environ, "TMPDIR": str(place), "XDG_STATE_HOME": str(place / "state")}
    program = subprocess.Popen(
        [sys.executable, "-m", "tests.limits.host_program"],
        stdout=subprocess.PIPE,
        env=environment,
        cwd=Path(host_program.__file__).parents[2],
    )
    assert program.stdout is not None
    with program, program.stdout:
        assert program.stdout.readline() == b"ready\n"
        left = session_groups(program.pid)
        program.kill()
    try:
        yield left
    finally:
        for group in left:
            with suppress(OSError):
                os.rmdir(group)


def test_leak_fixture_sees_our_groups(facts: CgroupFacts) -> None:
    for parent in {parent.directory for parent in facts.parents}:
        group = f"{parent}/sandyard-0123456789abcdef"
        os.mkdir(group)
        try:
            assert group in find_cgroups()
        finally:
            os.rmdir(group)


async def test_cancelled_start_leaves_no_group() -> None:
    client = UnixLocalSandboxClient(policy=Policy(limits=LIMITS))
    for delay in (0.0, 0.001, 0.003, 0.01):
        session = await client.create()
        start = asyncio.create_task(session.start())
        await asyncio.sleep(delay)
        start.cancel()
        with suppress(asyncio.CancelledError):
            await start
        await client.delete(session)
        assert session_groups() == []


async def test_stopped_session_has_no_group() -> None:
    async with limited(LIMITS) as session:
        first = session_groups()
        assert first
        await session.shutdown()
        assert session_groups() == []
        await session.start()
        assert len(session_groups()) == len(first)
        assert not set(session_groups()) & set(first)


async def test_killed_sandbox_leaves_no_group() -> None:
    async with limited(LIMITS) as session:
        with suppress(Exception):
            await session.exec("kill -9 -1; sleep 60", timeout=0.2)
        assert (await session.exec("setsid sleep 600 & echo left")).stdout == b"left\n"
    assert session_groups() == []


def test_killed_host_is_swept(tmp_path: Path) -> None:
    with killed_host(tmp_path) as left:
        assert left
        assert all(map(os.path.exists, left))  # nobody was there to remove them
        program = "from tests.limits.test_ends import start_once; start_once()"
        subprocess.run(
            [sys.executable, "-c", program],
            check=True,
            cwd=Path(host_program.__file__).parents[2],
        )
        assert not [group for group in left if os.path.exists(group)]


def start_once() -> None:
    """Start one session without a limit, as the next program of the same user might."""

    async def run() -> None:
        async with limited(ResourceLimits()):
            pass

    asyncio.run(run())


async def test_sweep_spares_the_living() -> None:
    async with limited(LIMITS) as session:
        groups = session_groups()
        await asyncio.to_thread(sweep_groups, cgroup_directories(), now=True)
        assert session_groups() == groups
        assert (await session.exec("true")).ok()


def cgroup_directories() -> tuple[str, ...]:
    return cgroup_facts(tried=False).directories
