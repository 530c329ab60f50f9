"""Control groups on the real kernel: memory, processes and processors are held and told."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import pytest

from sandyard import ConfinementUnavailableError, ResourceLimitError, ResourceLimits
from sandyard.platform import CgroupFacts
from tests.limits.living import (
    MIB,
    existing,
    hit_names,
    limited,
    members_of,
    need_controllers,
    session_groups,
)

HOG = "bytearray(300 << 20)"
BURN = "import time\nwhile time.process_time() < 1: pass"
# They hold what they have until one was ended, so that all of it is there at the same time.
FAMILY = """
import os
reading, writing = os.pipe()
for n in range(4):
    if os.fork() == 0:
        os.close(writing); held = b"x" * (60 << 20); os.read(reading, 1); os._exit(0)
ended = [os.wait()[1]]
os.close(writing)
ended += [os.wait()[1] for n in range(3)]
print(sum(os.waitstatus_to_exitcode(status) == -9 for status in ended))
"""
FORKS = "for n in $(seq 60); do sleep 60 & done"


@pytest.fixture(autouse=True)
def facts() -> CgroupFacts:
    return need_controllers("memory", "pids", "cpu")


async def test_full_memory_is_a_hit() -> None:
    async with limited(ResourceLimits(memory=128 * MIB)) as session:
        direct = await session.exec("python3", "-c", HOG, shell=False)
        assert direct.exit_code == -signal.SIGKILL
        (hit,) = direct.limit_hits
        assert (hit.limit, hit.value, hit.unit) == ("memory", 128 * MIB, "bytes")
        assert hit.by in ("cgroup v1 memory", "cgroup v2 memory")
        assert "ended the command" in hit.detail
        # A process that is not the command itself: its exit does not tell.
        nested = await session.exec(f"python3 -c '{HOG}'; true")
        assert (nested.exit_code, hit_names(nested)) == (0, ["memory"])
        assert "a process of the session" in nested.limit_hits[0].detail
        quiet = await session.exec("python3 -c 'bytearray(30 << 20)'")
        assert (quiet.exit_code, quiet.limit_hits) == (0, ())


async def test_memory_counts_the_session_together() -> None:
    async with limited(ResourceLimits(memory=128 * MIB)) as session:
        result = await session.exec("python3", "-c", FAMILY, shell=False)
        assert int(result.stdout) >= 1  # some were ended
        assert hit_names(result) == ["memory"]
        # What lies in /tmp is memory of the session too: half of it may.
        fill = await session.exec("head -c 200000000 /dev/zero > /tmp/full; stat -c %s /tmp/full")
        assert b"No space left" in fill.stderr
        assert int(fill.stdout) <= 64 * MIB


async def test_processes_are_a_hit() -> None:
    async with limited(ResourceLimits(memory=256 * MIB, processes=30)) as session:
        result = await session.exec(FORKS, leftovers="end")
        assert b"fork" in result.stderr
        (hit,) = result.limit_hits
        assert (hit.limit, hit.value) == ("processes", 30)
        assert hit.by in ("cgroup v1 pids", "cgroup v2 pids")
        assert (await session.exec("true")).limit_hits == ()


async def test_processors_are_shared() -> None:
    async with limited(ResourceLimits(cpus=0.25)) as session:
        began = time.monotonic()
        result = await session.exec("python3", "-c", BURN, shell=False)
        elapsed = time.monotonic() - began
    assert result.usage is not None
    used = result.usage.user_s + result.usage.system_s
    # A quota in each tenth of a second: at most one of them more than the share. A busy machine
    # gives less, never more.
    assert used <= 0.25 * (elapsed + 0.2)
    assert result.limit_hits == ()


async def test_fork_bomb_and_full_scratch_stay_inside() -> None:
    bomb = ":(){ :|:& };:"
    limits = ResourceLimits(memory=256 * MIB, processes=64, wall_time=60)
    async with limited(limits) as session, limited(ResourceLimits()) as other:
        try:
            result = await session.exec("bash", "-c", f"{bomb} ; sleep 1", shell=False)
            assert hit_names(result) == ["processes"]
        except ResourceLimitError as error:
            assert error.context["limit"] == "processes"  # noqa: PT017
        assert (await other.exec("for n in 1 2 3; do sleep 0 & done; wait; echo fine")).ok()
        process = await asyncio.create_subprocess_exec("true")
        assert await process.wait() == 0
    assert session_groups() == []


async def test_default_makes_no_group() -> None:
    async with limited(ResourceLimits()) as session:
        assert session_groups() == []
        assert (await session.exec("true")).ok()


async def test_groups_lie_below_our_own(facts: CgroupFacts) -> None:
    async with limited(ResourceLimits(memory=64 * MIB, cpus=1)):
        groups = session_groups()
        wanted = {facts.parent_of(name) for name in ("memory", "pids", "cpu")}
        assert len(groups) == len(wanted)
        own = str(os.getpid())
        for group in groups:
            members = members_of(group)
            assert len(members) == 2
            assert own not in members
    assert existing(groups) == []


async def test_refused_start_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write

    def refuse(fd: int, data: bytes) -> int:
        if data == b"200000":
            raise OSError(22, "Invalid argument")
        return real(fd, data)

    monkeypatch.setattr(os, "write", refuse)  # the kernel's answer where the parent has less
    with pytest.raises(ConfinementUnavailableError) as caught:
        async with limited(ResourceLimits(memory=64 * MIB, cpus=2)):
            pass
    assert caught.value.context["dimension"] == "resources"
    assert "cpu." in str(caught.value)
    assert session_groups() == []
