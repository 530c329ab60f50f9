"""A timeout ends the whole tree, whatever the tree tries, and the session stays usable."""

from __future__ import annotations

import asyncio
import time

import pytest

from sandyard import ExecTimeoutError, UnixLocalSandboxSession
from tests.session.host import find_survivors, living_processes, make_token, until
from tests.session.test_leftovers import DAEMON

Session = UnixLocalSandboxSession

EACH_KEEPER = (
    'for p in /proc/[0-9]*; do [ "$(cat $p/comm)" = sandyard-keeper ] && kill -@ ${p#/proc/}; done'
)
KILL_KEEPERS = EACH_KEEPER.replace("@", "KILL")
STOP_KEEPERS = EACH_KEEPER.replace("@", "STOP")

TREES = {
    "a sleeping command": "sleep @",
    "children": "sleep @ & sleep @ & wait",
    "setsid": "setsid sleep @ & setsid -w sleep @",
    "a double fork": "python3 -c '" + DAEMON + "' @; sleep @",
    "ignored signals": "trap '' TERM INT HUP QUIT; sleep @ & sleep @",
    "a stopped tree": "sleep @ & kill -STOP $!; kill -STOP $$; sleep @",
    "closed streams": "exec <&- >&- 2>&-; sleep @",
    "a parent that does not wait": "python3 -c 'import os, time\nfor i in range(20):"
    "\n if not os.fork(): time.sleep(@)\ntime.sleep(@)'",
    "a stopped keeper": STOP_KEEPERS + "; setsid sleep @ & sleep @",
    "a killed keeper": "setsid sleep @ & " + KILL_KEEPERS + "; sleep @",
    "a keeper stopped for ever": "(while :; do " + STOP_KEEPERS + "; done) & sleep @",
    "a child that becomes another's": "(setsid sleep @ &) & exec sleep @",
}


@pytest.mark.parametrize("tree", TREES.values(), ids=TREES.keys())
async def test_tree_ends_within_a_second(session: Session, tree: str) -> None:
    token = make_token()
    timeout = 0.3
    began = time.monotonic()
    try:
        result = await session.exec(tree.replace("@", token), timeout=timeout)
    except ExecTimeoutError:
        assert time.monotonic() - began < timeout + 1.5
    else:
        assert KILL_KEEPERS in tree  # then the command is known to be lost at once
        assert result.exit_code == -9
        assert result.usage is None
    assert find_survivors(token) == []
    result = await session.exec("echo usable", timeout=10)
    assert result.stdout == b"usable\n"


async def test_tree_that_ends_in_time_is_no_timeout(session: Session) -> None:
    result = await session.exec("echo hi", timeout=30)
    assert result.stdout == b"hi\n"
    result = await session.exec("sleep 60 & echo hi", timeout=30)
    assert len(result.leftovers) == 1


async def test_timeout_spares_other_commands(session: Session) -> None:
    token = make_token()
    await session.exec(f"setsid sleep {token} & echo")
    other = asyncio.create_task(session.exec("mkfifo gate; cat gate"))
    with pytest.raises(ExecTimeoutError):
        await session.exec("sleep 1000", timeout=0.2)
    assert len(find_survivors(token)) == 1
    await session.exec("until [ -p gate ]; do :; done; echo through > gate", timeout=10)
    assert (await other).stdout == b"through\n"


async def test_tiny_timeouts_end_cleanly(session: Session) -> None:
    token = make_token()
    for timeout in (1e-9, 1e-6, 1e-4, 1e-3, 2e-3, 4e-3, 8e-3):
        with pytest.raises(ExecTimeoutError):
            await session.exec(f"sleep {token} & sleep {token}", timeout=timeout)
        assert find_survivors(token) == []
    assert (await session.exec("echo hi")).stdout == b"hi\n"


async def test_forks_without_end_are_ended(session: Session) -> None:
    # Each child forks as fast as it can, up to a limit of its own that the machine hardly feels.
    token = make_token()
    bomb = (
        "import os, resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_NPROC, (200, 200))\n"
        "print('begun', flush=True)\n"
        "while True:\n"
        " try: os.fork()\n"
        " except OSError: pass\n"
    )
    began = time.monotonic()
    with pytest.raises(ExecTimeoutError) as caught:
        await session.exec("python3", "-c", bomb, token, timeout=2, shell=False)
    assert time.monotonic() - began < 2 + 5
    assert caught.value.stdout == b"begun\n"
    await until(lambda: not find_survivors(token))
    assert (await session.exec("echo hi", timeout=10)).stdout == b"hi\n"


async def test_processes_are_limited(session: Session) -> None:
    result = await session.exec("ulimit -u; ulimit -Hu", shell=["bash", "-c"])
    assert result.stdout == b"4096\n4096\n"


class TestKeepers:
    async def test_killing_everything_leaves_it_usable(self, session: Session) -> None:
        await asyncio.gather(*(session.exec("sleep 0.1") for _ in range(5)))
        for _ in range(20):
            result = await session.exec("kill -9 -1; echo still here; sleep 1000", timeout=10)
            assert result.exit_code == -9
            result = await session.exec("echo hi", timeout=10)
            assert result.stdout == b"hi\n"

    async def test_stopped_keepers_serve_the_next(self, session: Session) -> None:
        await asyncio.gather(*(session.exec("sleep 0.1") for _ in range(5)))
        await session.exec(STOP_KEEPERS, timeout=10)
        results = await asyncio.gather(*(session.exec("echo hi", timeout=10) for _ in range(5)))
        assert {result.stdout for result in results} == {b"hi\n"}

    async def test_killed_keeper_takes_its_tree(self, session: Session) -> None:
        token = make_token()
        await session.exec(f"setsid sleep {token} & echo")
        await until(lambda: len(find_survivors(token)) == 1)  # it may not have become sleep yet
        result = await session.exec(KILL_KEEPERS, timeout=10)
        assert result.exit_code == -9
        await until(lambda: not find_survivors(token))
        assert (await session.exec("echo hi", timeout=10)).stdout == b"hi\n"

    async def test_other_commands_learn_of_it(self, session: Session) -> None:
        others = [asyncio.create_task(session.exec("touch up$$; sleep 1000")) for _ in range(3)]
        await session.exec("until [ $(ls up* | wc -l) = 3 ]; do :; done", timeout=10)
        await session.exec("kill -9 -1", timeout=10)
        done, pending = await asyncio.wait(others, timeout=5)
        assert not pending
        assert {task.result().exit_code for task in done} == {-9}

    async def test_kills_beside_commands_are_results(self, session: Session) -> None:
        codes = set()

        async def run(command: str, times: int) -> None:
            for _ in range(times):
                codes.add((await session.exec(command, timeout=10)).exit_code)

        calls = [run("echo hi", 120) for _ in range(5)]
        await asyncio.gather(*calls, run("kill -9 -1", 60), run("kill -9 -1", 60))
        assert codes == {0, -9}

    async def test_idle_keepers_leave(self, session: Session) -> None:
        await session.exec("true")
        few = len(living_processes())
        await asyncio.gather(*(session.exec("sleep 0.2") for _ in range(16)))
        assert len(living_processes()) > few
        await until(lambda: len(living_processes()) <= few, within=10)
