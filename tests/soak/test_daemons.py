"""A hundred daemons, a thousand times: none outlives what started it, however that ends."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from sandyard import ExecTimeoutError, UnixLocalSandboxClient, UnixLocalSandboxSession
from tests.house.leaks import OUR_NAMES, find_cgroups, find_mounts
from tests.session.host import find_survivors, make_token, until
from tests.session.test_death import run_host

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]

Session = UnixLocalSandboxSession

ROUNDS, DAEMONS = 1000, 100

# Each in a session of its own, a third of them orphans of a second fork.
START = (
    f"for i in $(seq {DAEMONS}); do "
    "if [ $((i % 3)) = 0 ]; then (setsid sleep @ &); else setsid sleep @ & fi; done; "
    f"until [ $(pgrep -c sleep) -ge {DAEMONS} ]; do :; done"
)


async def test_1000_rounds_of_daemons(tmp_path: Path, report: Callable[[str], None]) -> None:
    ended: Counter[str] = Counter()
    rounds: Counter[str] = Counter()
    client, before = UnixLocalSandboxClient(), list_kept()
    for number in range(ROUNDS):
        end = ENDS[number % len(ENDS)]
        name = "the host's SIGKILL" if end is None else end.__name__.replace("_", " ")
        rounds[name] += 1
        ended[name] += await kill_host(tmp_path) if end is None else await end_one(client, end)
    assert list_kept() <= before
    for name, count in rounds.items():
        report(f"{count} times {name}: {ended[name]} daemons ended, 0 left")


async def time_out(session: Session, token: str) -> int:
    """The command that started them takes too long."""
    with pytest.raises(ExecTimeoutError):
        await session.exec(f"{START.replace('@', token)}; touch ready; sleep {token}", timeout=5)
    assert (await session.exec("test -e ready")).exit_code == 0  # all of them had begun
    return DAEMONS


async def cancel(session: Session, token: str) -> int:
    """Whoever waits for the command is cancelled."""
    task = asyncio.create_task(session.exec(f"{START.replace('@', token)}; sleep {token}"))
    await until(lambda: len(find_survivors(token)) > DAEMONS, within=30)
    count = len(find_survivors(token))
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    return count


async def close(session: Session, token: str) -> int:
    """The session is closed; the command had ended by itself."""
    await session.exec(START.replace("@", token))
    count = len(find_survivors(token))
    assert count >= DAEMONS
    await session.aclose()
    return count


End = Callable[[Session, str], Awaitable[int]]
ENDS: tuple[End | None, ...] = (
    cancel,
    close,
    None,
    cancel,
    close,
    None,
    cancel,
    close,
    None,
    time_out,
)
"""None: the host program is killed. A timeout takes the seconds that it is, so there are fewer."""


async def end_one(client: UnixLocalSandboxClient, end: End) -> int:
    """One session and its daemons; returns how many there were when none is left."""
    token = make_token()
    async with await client.create() as session:
        count = await end(session, token)
        # What was ended is dead before the call returns: not a moment later.
        assert not find_survivors(token)
    await client.delete(session)
    return count


async def kill_host(tmp_path: Path) -> int:
    """A host program with its daemons; returns how many there were when none is left."""
    token = make_token()
    with run_host(tmp_path, token, daemons=START) as program:
        await until(lambda: len(find_survivors(token)) >= DAEMONS, within=30)
        count = len(find_survivors(token))
        program.send_signal(signal.SIGKILL)
        await until(lambda: not find_survivors(token), within=30)
    return count


def list_kept() -> set[str]:
    """What the kernel could keep of a dead host: mounts, and cgroups of ours.

    Others' cgroups come and go on a machine within so long a run.
    """
    ours = {group for group in find_cgroups().values() if any(name in group for name in OUR_NAMES)}
    return ours | set(find_mounts().values())
