"""A first process that answers anything with anything: every call ends, and nothing is left behind.

``FUZZ_SECONDS`` says how long (``make fuzz`` and ``make soak`` set it), ``FUZZ_SEED`` with which
conversation it begins; a failure names the one that it was, and the number lies in ``fuzz/corpus`` from
then on, where every run of the tests tries it.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
import tracemalloc
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from sandyard import ExecResult, SandboxError, UnixLocalSandboxClient, UnixLocalSandboxSession
from tests.fuzz.conftest import ANSWER_S, Scene, bounded, no_lost_errors
from tests.fuzz.seconds import fuzz_seconds

FOUND = Path(__file__).parents[2] / "fuzz" / "corpus" / "liars"
"""Conversations that something did not survive: files named by their numbers."""

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


def keep_seed(found: Path, seed: int, error: Exception) -> None:
    """Writes down which conversation it was that failed, and how."""
    found.mkdir(parents=True, exist_ok=True)
    (found / str(seed)).write_text(f"{error!r}\n")


async def play_all(play: Scene, seeds: Iterable[int], found: Path = FOUND) -> None:
    """Conversations one after the other; the number of one that fails is kept."""
    tracemalloc.start()
    try:
        for seed in seeds:
            try:
                await play_seed(play, seed)
            except Exception as error:
                error.add_note(f"replay: FUZZ_SEED={seed} python -m pytest {__file__}")
                keep_seed(found, seed, error)
                raise
    finally:
        tracemalloc.stop()


async def play_for(play: Scene, seconds: float) -> None:
    """Conversations until the time is over."""
    await play_all(play, take_seeds(seconds))


async def test_found_liars_are_survived(play: Scene) -> None:
    found = FOUND.iterdir() if FOUND.is_dir() else ()
    await play_all(play, sorted(int(path.name) for path in found))


async def test_finding_is_kept(
    play: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def converse_badly(_: UnixLocalSandboxSession) -> None:
        raise RuntimeError("not survived")

    monkeypatch.setattr("tests.fuzz.test_hostile_random.converse", converse_badly)
    with pytest.raises(RuntimeError, match="not survived"):
        await play_all(play, [3, 4], tmp_path / "found")
    assert [path.name for path in (tmp_path / "found").iterdir()] == ["3"]


async def test_liars_are_survived(play: Scene) -> None:
    await play_for(play, fuzz_seconds())


@pytest.mark.soak
@pytest.mark.timeout(0)
async def test_liars_are_survived_for_long(play: Scene) -> None:
    await play_for(play, fuzz_seconds(soak=True))
