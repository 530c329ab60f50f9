"""Limits that need no control group, on the real kernel, as root and as an ordinary user."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from sandyard import ConfinementUnavailableError, ExecTimeoutError, ResourceLimits
from tests.limits.living import MIB, follow, hit_names, limited, need_none

SPIN = "while True: pass"
FORKS = """
import os, time
count = 0
try:
    while count < 200:
        if os.fork() == 0: time.sleep(60); os._exit(0)
        count += 1
except OSError as error: print(count, error.errno)
"""
WRITE = """
import os
fd = os.open("/tmp/large", os.O_CREAT | os.O_WRONLY)
try:
    while True: os.write(fd, bytes(65536))
except OSError as error: print(error.errno, os.fstat(fd).st_size)
"""


@pytest.fixture
def groupless() -> None:
    need_none("memory", "cpu")


async def test_processes_are_counted_per_session() -> None:
    limits = ResourceLimits(processes=30)
    async with limited(limits) as one, limited(limits) as two, limited(limits) as three:
        runs = [s.exec("python3", "-c", FORKS, shell=False) for s in (one, two, three)]
        results = await asyncio.gather(*runs)
        counts = [result.stdout.split() for result in results]
        # The first process, the command's helper and the command itself count as well.
        assert counts == [[b"27", b"11"]] * 3
        assert {limit.limit: limit.by for limit in one.limits.report}["processes"] == (
            "rlimit per user namespace"
        )


async def test_processor_time_is_a_hit() -> None:
    async with limited(ResourceLimits(cpu_time=1)) as session:
        spun = await session.exec("python3", "-c", SPIN, shell=False)
        shelled = await session.exec(f"python3 -c '{SPIN}'; exit $?")
        killed = await session.exec("kill -9 $$")
        quiet = await session.exec("true")
    for result in (spun, shelled):
        assert result.exit_code in (-signal.SIGXCPU, -signal.SIGKILL, 152, 137)
        (hit,) = result.limit_hits
        assert (hit.limit, hit.value, hit.unit) == ("cpu_time", 1, "seconds")
        assert hit.by == "rlimit per process"
    assert killed.exit_code == -signal.SIGKILL  # by itself, long before
    assert hit_names(killed) == hit_names(quiet) == []


async def test_file_size_is_a_hit() -> None:
    async with limited(ResourceLimits(file_size=MIB)) as session:
        result = await session.exec("head", "-c", "5000000", "/dev/zero", shell=False)
        assert result.ok()  # a pipe is no file
        result = await session.exec("cat /dev/zero > large")
        assert result.exit_code in (-signal.SIGXFSZ, 128 + signal.SIGXFSZ)
        (hit,) = result.limit_hits
        assert (hit.limit, hit.value, hit.by) == ("file_size", MIB, "rlimit per process")
        ignoring = await session.exec("python3", "-c", WRITE, shell=False)
        assert ignoring.stdout.split() == [b"27", str(MIB).encode()]  # EFBIG
        assert hit_names(ignoring) == []
        (entry,) = await session.ls(".")
        assert entry.size == MIB


async def test_wall_time_is_a_default() -> None:
    async with limited(ResourceLimits(wall_time=0.2)) as session:
        with pytest.raises(ExecTimeoutError) as caught:
            await session.exec("echo begun; sleep 60")
        assert caught.value.context["limit"] == "wall_time"
        result = caught.value.result
        assert result is not None
        assert result.stdout == b"begun\n"
        (hit,) = result.limit_hits
        assert (hit.limit, hit.value, hit.by) == ("wall_time", 0.2, "host timer")
        assert (await session.exec("sleep 0.4; echo longer", timeout=60)).stdout == b"longer\n"
        with pytest.raises(ExecTimeoutError) as shorter:
            await session.exec("sleep 60", timeout=0.1)
        assert "limit" not in shorter.value.context
        with pytest.raises(ExecTimeoutError) as streamed:
            await follow(session, "sleep 60")
        assert streamed.value.context["limit"] == "wall_time"


async def test_dropped_output_is_a_hit() -> None:
    async with limited(ResourceLimits(output=100)) as session:
        cut = await session.exec("seq 1000; echo short >&2")
        assert len(cut.stdout) == 100
        (hit,) = cut.limit_hits
        assert (hit.limit, hit.value, hit.by) == ("output", 100, "host capture")
        assert "stdout" in hit.detail
        whole = await session.exec("seq 1000", output_limit=10_000)
        assert (whole.stdout_dropped, whole.limit_hits) == (0, ())


async def test_scratch_is_bounded() -> None:
    async with limited(ResourceLimits(scratch_size=8 * MIB)) as session:
        result = await session.exec("head -c 20000000 /dev/zero > /tmp/full; stat -c %s /tmp/full")
        assert b"No space left" in result.stderr
        assert 7 * MIB < int(result.stdout) <= 8 * MIB
        assert not (await session.exec("echo more > $HOME/more")).ok()  # one room for all
        assert (await session.exec("rm /tmp/full; echo more > $HOME/more")).ok()


async def test_open_files_are_bounded() -> None:
    code = "import os\ntry:\n while 1: os.dup(0)\nexcept OSError as e: print(e.errno)"
    async with limited(ResourceLimits(open_files=64)) as session:
        result = await session.exec("python3", "-c", code, shell=False)
        assert result.stdout == b"24\n"
        assert (await session.exec("ulimit -H -n")).stdout == b"64\n"


@pytest.mark.user
async def test_memory_of_a_user_is_per_process(groupless: None) -> None:
    async with limited(ResourceLimits(memory=256 * MIB)) as session:
        held = next(limit for limit in session.limits.report if limit.limit == "memory")
        assert (held.by, held.strength) == ("rlimit per process", "partial")
        assert "no group can be made" in held.why or "delegated" in held.why
        large = await session.exec("python3 -c 'bytearray(500 << 20)'")
        assert b"MemoryError" in large.stderr
        assert (await session.exec("python3 -c 'bytearray(100 << 20)'")).ok()


@pytest.mark.user
async def test_processors_of_a_user_are_refused(groupless: None) -> None:
    with pytest.raises(ConfinementUnavailableError, match="Delegate=yes"):
        async with limited(ResourceLimits(cpus=1)):
            pass


async def test_default_bounds_what_harms_at_once() -> None:
    async with limited(ResourceLimits()) as session:
        held = {limit.limit: limit for limit in session.limits.report}
    assert held["processes"].value == held["open_files"].value == 4096
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert held["scratch_size"].value <= memory / 2
    assert {limit.strength for limit in held.values()} == {"enforced"}
