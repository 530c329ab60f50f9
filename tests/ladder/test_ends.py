"""Nothing outlives its end on a lower rung either: timeout, cancel, close, and whoever is killed."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.house.leaks import list_children, read_state
from tests.ladder.hosts import run_host
from tests.session.host import find_survivors, make_token, name_of, until

HOSTS = ("nested,covered_proc", "no_user", "nested,no_user")
ALL = 5
"""Sleepers that are started."""


@pytest.fixture
def place() -> Iterator[Path]:
    """Where a host's directories lie: they stay when it is killed, until the next start's sweep."""
    made = Path(tempfile.mkdtemp())
    made.chmod(0o755)  # root's commands are somebody else, and pass through it
    yield made
    shutil.rmtree(made)


def living(token: str) -> list[str]:
    """The sleepers alone: the host program and shells have the token among their words as well."""
    return [line for line in find_survivors(token) if f"'sleep\\x00{token}" in line]


def pair_up(ends: tuple[str, ...]) -> list[object]:
    """Every host with every end: all of them for an ordinary user, and for root each at least once."""
    return [
        pytest.param(
            how, end, marks=() if at % len(HOSTS) == nr % len(HOSTS) else pytest.mark.plain
        )
        for nr, how in enumerate(HOSTS)
        for at, end in enumerate(ends)
    ]


@pytest.mark.parametrize(("how", "way"), pair_up(("timeout", "cancel", "close")))
async def test_end_takes_all(how: str, way: str) -> None:
    token = make_token()
    with run_host(how, "tests.ladder.sleeper", token, way) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
        if way != "timeout":
            await until(lambda: len(living(token)) >= ALL, within=20)
            program.stdin.write("\n")
            program.stdin.flush()
        assert program.stdout.readline() == "ended\n"
        assert not living(token)
        program.stdin.close()
        assert program.wait(20) == 0


@pytest.mark.parametrize(("how", "victim"), pair_up(("host", "outer", "init", "stopped init")))
async def test_death_takes_all(how: str, victim: str, place: Path) -> None:
    token = make_token()
    places = {"TMPDIR": str(place), "XDG_STATE_HOME": str(place / "state")}
    with run_host(how, "tests.ladder.sleeper", token, "wait", **places) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
        await until(lambda: len(living(token)) >= ALL, within=20)
        (outer,) = [pid for pid in list_children(program.pid) if name_of(pid) == "sandyard-init"]
        init = next(pid for pid in list_children(outer) if name_of(pid) == "sandyard-init")
        if victim == "stopped init":
            os.kill(init, signal.SIGSTOP)
            program.kill()
        else:
            target = {"host": program.pid, "outer": outer, "init": init}[victim]
            os.kill(target, signal.SIGKILL)
        await until(lambda: not living(token), within=20)
        await until(lambda: read_state(outer)[0] in "ZX?", within=20)
