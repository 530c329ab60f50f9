"""A first process that lies before the walls are up: the start fails, in words, and nothing is left."""

from __future__ import annotations

import struct

import pytest

from sandyard import ConfinementUnavailableError, UnixLocalSandboxSession
from tests.fuzz.conftest import Scene, bounded
from tests.fuzz.hostile import (
    EXITED,
    GONE,
    MAGIC,
    SPAWNED,
    START_FAILED,
    STARTED,
    exited,
    failure,
    gone,
    message,
)

Session = UnixLocalSandboxSession

GARBAGE = {
    "a byte": b"\0",
    "half a head": bytes(15),
    "zeros": bytes(16),
    "another language": struct.pack("=IHHII", MAGIC + 1, STARTED, 0, 0, 0),
    "a body that is not there": struct.pack("=IHHII", MAGIC, STARTED, 0, 0, 8),
    "a body in a memfd": struct.pack("=IHHII", MAGIC, STARTED, 1, 0, 0),
    "a request": message(2, 1, bytes(40)),
    "an unknown event": message(70),
    "half a step": message(STARTED, 0, bytes(4)),
    "an unknown step": message(STARTED, 0, struct.pack("=HHI", 99, 0, 0)),
    "more than a datagram": message(STARTED, 0, bytes(100_000)),
    "an exit cut off": message(EXITED, 1, bytes(8)),
    "an end without its account": message(GONE, 1),
    "half a pid": message(SPAWNED, 1, bytes(4)),
}


async def refused(session: Session) -> str:
    """The message with which a start fails."""
    error = await bounded(session.start())
    assert isinstance(error, ConfinementUnavailableError), error
    assert not await session.running()
    return str(error)


@pytest.mark.parametrize(
    "scene", ["silent", "stubborn", "leaving", "mute", "deaf", "flooding_start"]
)
async def test_start_without_answer(play: Scene, deceived: Session, scene: str) -> None:
    play(scene)
    assert "could not be started" in await refused(deceived)


@pytest.mark.parametrize("what", GARBAGE)
async def test_start_answered_with_garbage(play: Scene, deceived: Session, what: str) -> None:
    play("answering", answers=[GARBAGE[what]])
    assert "could not be started" in await refused(deceived)


async def test_any_failure_is_told(play: Scene, deceived: Session) -> None:
    failures = [(1, 0), (6, -1), (6, 2), (17, -(2**31)), (32, 2**31 - 1), (35, 2)]
    for seed, (step, error) in enumerate(failures):
        answer = failure(START_FAILED, 0, step, error, b"/\xff\0" * 1000)
        play("answering", seed=seed, answers=[answer])
        assert f"errno {error}]" in await refused(deceived)


async def test_events_of_no_job_are_dropped(play: Scene, deceived: Session) -> None:
    early = [exited(1), gone(1), message(SPAWNED, 1, bytes(8))] * 50
    play("answering", answers=[*early, failure(START_FAILED, 0, 8, 13)])
    assert "mounting failed" in await refused(deceived)
