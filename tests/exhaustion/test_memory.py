"""Too little memory, inside and outside: a result that says so or an error, never a loss or a hang."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandyard import UnixLocalSandboxSession
from tests.exhaustion.little_memory import MIB, SPARES
from tests.exhaustion.programs import run_program
from tests.house.leaks import list_controllers

GROUP_BYTES = 192 * MIB
"""Enough for an interpreter with the library and a sandbox, and soon used up."""


async def test_commands_own_limit(session: UnixLocalSandboxSession) -> None:
    hog = "try: bytearray(10**9)\nexcept MemoryError: print('refused'); raise"
    result = await session.exec(f'ulimit -v 300000; exec python3 -c "{hog}"')
    assert (result.exit_code, result.stdout) == (1, b"refused\n")
    assert b"MemoryError" in result.stderr
    assert (await session.exec("echo on")).stdout == b"on\n"


async def test_limit_below_a_program(session: UnixLocalSandboxSession) -> None:
    # The shell lives, and what it starts does not even load.
    result = await session.exec("ulimit -v 1000; /usr/bin/env true")
    assert result.exit_code not in (0, None)
    assert await session.running()
    assert (await session.exec("echo on")).stdout == b"on\n"


# --- the kernel ends somebody --------------------------------------------------------------------


@pytest.fixture
def memory_group() -> Iterator[Path]:
    """A new memory group below our own, of either version, with a limit."""
    name = f"exhausted-{secrets.token_hex(4)}"
    for place in map(Path, list_controllers()):
        for limit in ("memory.limit_in_bytes", "memory.max"):
            group = place / name
            try:
                group.mkdir()
            except OSError:
                continue
            try:
                (group / limit).write_text(str(GROUP_BYTES), encoding="ascii")
            except OSError:
                group.rmdir()
                continue
            yield group
            group.rmdir()
            return
    pytest.skip("there is no memory group that we may divide")


@pytest.mark.root
def test_killed_for_memory(memory_group: Path, tmp_path: Path) -> None:
    lines = run_program("small_group", str(memory_group), temporary=tmp_path)
    assert lines == ["exit -9", "exit -9", "exit -9", "other on", "after on"]


# --- the host program itself ---------------------------------------------------------------------


HONEST = {"MemoryError", "ResourceLimitError memory", "LibraryLoadError not_loadable", "exact"}


ABORTED = "Cannot recover from MemoryErrors while normalizing exceptions"
"""What Python 3.11 says before it aborts: rarely it has no room left for even an error of the kernel's."""


def run_with_little(what: str, tmp_path: Path) -> list[str]:
    """What the program tells; once more where the interpreter itself gave up, which later ones don't."""
    try:
        return run_program("little_memory", what, temporary=tmp_path)
    except AssertionError as error:
        if sys.version_info >= (3, 12) or ABORTED not in str(error):
            raise
    return run_program("little_memory", what, temporary=tmp_path)


@pytest.mark.parametrize("what", ["run", "stream"])
def test_capture_without_memory(tmp_path: Path, what: str) -> None:
    lines = [line.split("|") for line in run_with_little(what, tmp_path)]
    assert [int(spare) * MIB for spare, *_ in lines] == list(SPARES)
    assert {said for _, said, *_ in lines} <= HONEST
    assert {(left, again) for *_, left, again in lines} == {("0", "on")}
    assert lines[-1][1] == "exact"
    assert what == "stream" or lines[0][1] != "exact"


def test_freed_in_time(tmp_path: Path) -> None:
    (said,) = run_program("little_memory", "free", temporary=tmp_path)
    assert said in HONEST
