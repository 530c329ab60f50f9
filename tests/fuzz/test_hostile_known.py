"""Lies that the host does not see through yet: each test is strict, and goes when its repair comes."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress

import pytest

from sandyard import ConfinementUnavailableError, ExecTransportError, UnixLocalSandboxSession
from tests.fuzz.conftest import Scene, bounded
from tests.house.leaks import find_descendants, list_children, read_state
from tests.session.host import until

Session = UnixLocalSandboxSession

STEPS = (5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18)  # enum step of native/protocol.h
NO_WALL = (19, 20)
"""May be told as skipped."""


@pytest.mark.parametrize("scene", ["leaving_out", "leaving_last", "skipping"])
async def test_every_step_must_be_told(play: Scene, deceived: Session, scene: str) -> None:
    accepted = []
    for step in STEPS if scene == "skipping" else (*STEPS, *NO_WALL):
        play(scene, seed=step, step=step)
        if not isinstance(await bounded(deceived.start()), ConfinementUnavailableError):
            accepted.append(step)
            await bounded(deceived.shutdown())
    assert not accepted


async def test_job_may_not_vanish(play: Scene, deceived: Session) -> None:
    play("vanishing_job")
    await deceived.start()
    call = asyncio.create_task(bounded(deceived.exec("true")))
    try:
        done, _ = await asyncio.wait([call], timeout=2)
        assert done, "it still waits for a sandbox that has ended"
        assert isinstance(call.result(), ExecTransportError)
    finally:
        call.cancel()
        await asyncio.wait([call])


async def test_nobody_reads(
    play: Scene, deceived: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sandyard.process.channel.SEND_TIMEOUT_S", 0.5)
    play("never_reading")
    await deceived.start()
    for _ in range(12):  # the channel takes some seven of them
        told = await bounded(deceived.exec("true", "x" * 30_000, timeout=0.1))
        assert not isinstance(told, TimeoutError) or await deceived.running()
    assert isinstance(told, ExecTransportError)
    assert not await deceived.running()


async def test_init_that_stays_is_killed(play: Scene, deceived: Session) -> None:
    play("parting")
    start = asyncio.create_task(bounded(deceived.start()))
    await until(lambda: any(map(list, map(list_children, find_descendants()))))
    (init,) = [child for outer in find_descendants() for child in list_children(outer)]
    try:
        assert isinstance(await start, ConfinementUnavailableError)
        await until(lambda: read_state(init)[0] in "ZX?")  # it was sent SIGKILL, and may be busy
    finally:
        with suppress(ProcessLookupError):
            os.kill(init, 9)
