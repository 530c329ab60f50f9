"""A first process that answers anything with anything: every call ends, and nothing is left behind.

``FUZZ_SECONDS`` says how long (``make fuzz`` and ``make soak`` set it), ``FUZZ_SEED`` with which
conversation it begins; a failure names the one that it was.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
import tracemalloc
from collections.abc import Iterator

import pytest

from sandyard import ExecResult, SandboxError, UnixLocalSandboxClient, UnixLocalSandboxSession
from tests.fuzz.conftest import ANSWER_S, Scene, bounded, no_lost_errors
from tests.fuzz.seconds import fuzz_seconds

MEMORY_BYTES = 16 * 1024 * 1024
"""What one conversation may take: far more than honest ones do, far less than a leak in a flood."""


async def read_stream(session: UnixLocalSandboxSession) -> int:
    """Reads a command to its end, as a caller would."""
    async with session.stream("true", timeout=0.2, stdin=bytes(300_000)) as stream:
        return sum([len(chunk.data) async for chunk in stream])


async def converse(session: UnixLocalSandboxSession) -> None:
    """Everything that a caller can ask of a session that runs commands."""
    if await bounded(session.start()) is not None:
        return
    for _ in range(3):
        calls = [bounded(session.exec("true", timeout=0.1)) for _ in range(4)]
        told = await asyncio.gather(*calls, bounded(read_stream(session)))
        assert all(isinstance(one, ExecResult | SandboxError | int) for one in told), told
    left = asyncio.create_task(bounded(session.exec("true")))
    await asyncio.sleep(0)
    await session.shutdown()
    assert isinstance(await left, ExecResult | SandboxError)


def take_seeds(seconds: float) -> Iterator[int]:
    """Numbers of conversations until the time is over."""
    end = time.monotonic() + seconds
    first = int(os.environ.get("FUZZ_SEED", "1"))
    return itertools.takewhile(lambda _: time.monotonic() < end, itertools.count(first))


async def play_seed(play: Scene, seed: int) -> None:
    """One conversation in a session of its own."""
    play("anything", seed=seed)
    client = UnixLocalSandboxClient()
    session = await client.create()
    tracemalloc.reset_peak()
    try:
        async with no_lost_errors(), asyncio.timeout(4 * ANSWER_S):
            await converse(session)
    finally:
        await bounded(client.delete(session))
    assert not await session.running()
    assert tracemalloc.get_traced_memory()[1] < MEMORY_BYTES


async def play_for(play: Scene, seconds: float) -> None:
    """Conversations until the time is over."""
    tracemalloc.start()
    try:
        for seed in take_seeds(seconds):
            try:
                await play_seed(play, seed)
            except BaseException as error:
                error.add_note(f"replay: FUZZ_SEED={seed} python -m pytest {__file__}")
                raise
    finally:
        tracemalloc.stop()


async def test_liars_are_survived(play: Scene) -> None:
    await play_for(play, fuzz_seconds())


@pytest.mark.soak
@pytest.mark.timeout(0)
async def test_liars_are_survived_for_long(play: Scene) -> None:
    await play_for(play, fuzz_seconds(soak=True))
