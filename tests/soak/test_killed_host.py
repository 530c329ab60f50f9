"""A host program with a hundred daemons is killed, fifty times: none of them outlives it."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.house.leaks import find_cgroups, find_mounts
from tests.session.host import find_survivors, make_token, until
from tests.session.test_death import run_host

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]

ROUNDS, DAEMONS = 50, 100

# Each in a session of its own, a third of them orphans of a second fork.
START = (
    f"for i in $(seq {DAEMONS}); do "
    "if [ $((i % 3)) = 0 ]; then (setsid sleep @ &); else setsid sleep @ & fi; done; "
    f"until [ $(pgrep -c sleep) -ge {DAEMONS} ]; do :; done"
)


async def test_100_daemons_50_times(tmp_path: Path, report: Callable[[str], None]) -> None:
    ended, before = 0, count_all()
    for _ in range(ROUNDS):
        ended += await kill_one(tmp_path)
    assert count_all() == before
    report(f"{ROUNDS} hosts killed: {ended} daemons ended, 0 left; mounts, cgroups {before}")


async def kill_one(tmp_path: Path) -> int:
    """Kill a host program with its daemons; returns how many there were when none is left."""
    token = make_token()
    with run_host(tmp_path, token, daemons=START) as program:
        await until(lambda: len(find_survivors(token)) >= DAEMONS, within=30)
        count = len(find_survivors(token))
        program.send_signal(signal.SIGKILL)
        await until(lambda: not find_survivors(token), within=30)
    return count


def count_all() -> tuple[int, int]:
    """What the kernel could keep of a dead host."""
    return len(find_mounts()), len(find_cgroups())
